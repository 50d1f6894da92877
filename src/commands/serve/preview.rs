//! The plan and the predicted speed of a pool on this machine, before anything is started.

use concord_coordinator::planner::PlannerDevice;
use concord_coordinator::planner::serving::{ServingPlan, plan_serving};
use concord_proto::serving::ServedModel;
use serde_json::json;

use super::ServeArgs;
use super::model::ModelToServe;
use crate::support::layers::ends;
use crate::support::output::Output;
use crate::support::table::table;

/// Measures a worker of this machine and shows the plan for as many as were asked for.
///
/// # Errors
/// Where the device is not there, or the model does not fit; says what would help.
pub fn show(
    args: &ServeArgs,
    model: &ModelToServe,
    served: &ServedModel,
    output: &Output,
) -> anyhow::Result<()> {
    let devices = args.share()?.devices(args.workers.max(1))?;
    let plan = plan_serving(
        &devices,
        &served.profile,
        model.deployment.layers,
        served.stages,
        served.pipelines,
        served.pages,
    )?;
    output.result(&text(&plan, &devices), &object(&plan, &devices));
    Ok(())
}

fn text(plan: &ServingPlan, devices: &[PlannerDevice]) -> String {
    let mut rows = Vec::new();
    for (number, pipeline) in plan.pipelines.iter().enumerate() {
        let stages = pipeline.stages.iter().zip(&pipeline.devices);
        for (stage, (layers, device)) in stages.enumerate() {
            rows.push([
                number.to_string(),
                stage.to_string(),
                layers.to_string(),
                format!("{device} ({})", devices[*device].name),
                pipeline.pages.to_string(),
            ]);
        }
    }
    let headings = [
        "pipeline",
        "stage",
        "layers",
        "worker",
        "pages of 128 tokens",
    ];
    let mut lines = vec![table(headings, &rows)];
    for (device, why) in &plan.rejected {
        lines.push(format!("worker {device} is not needed: {why}"));
    }
    let gib = devices[0].memory_bytes as f64 / (1_u64 << 30) as f64;
    lines.push(format!("each worker may use {gib:.1} GiB"));
    lines.push(format!(
        "predicted: first token of a prompt of 512 tokens after {:.0} ms; {:.1} tokens/s for one \
         client, {:.0} tokens/s for many",
        plan.first_token_micros as f64 / 1e3,
        plan.tokens_per_second_one,
        plan.tokens_per_second_all
    ));
    lines.join("\n")
}

fn object(plan: &ServingPlan, devices: &[PlannerDevice]) -> serde_json::Value {
    let pipelines: Vec<_> = plan
        .pipelines
        .iter()
        .map(|pipeline| {
            let stages = pipeline.stages.iter().map(|&layers| ends(layers));
            json!({ "stages": stages.collect::<Vec<_>>(), "workers": pipeline.devices,
                "pages": pipeline.pages })
        })
        .collect();
    json!({
        "event": "preview", "pipelines": pipelines,
        "worker_memory_bytes": devices[0].memory_bytes,
        "first_token_seconds": plan.first_token_micros as f64 / 1e6,
        "tokens_per_second_one": plan.tokens_per_second_one,
        "tokens_per_second_all": plan.tokens_per_second_all,
    })
}
