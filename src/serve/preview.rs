//! What a pool of this machine would do, and how fast, before anything is started.

use concord_coordinator::planner::Device;
use concord_coordinator::planner::serving::{ServingPlan, plan_serving};
use concord_proto::PublicKey;
use concord_proto::serving::ServedModel;
use concord_runtime::measure;
use serde_json::json;

use super::Args;
use super::model::ModelToServe;
use crate::bytes;
use crate::device::DeviceArgs;
use crate::output::Output;
use crate::table::table;

/// Measures a worker of this machine and shows the plan for as many as were asked for.
///
/// # Errors
/// Where the device is not there, or the model does not fit; with what would help.
pub fn show(
    args: &Args,
    model: &ModelToServe,
    served: &ServedModel,
    output: &Output,
) -> anyhow::Result<()> {
    let options = args.pool_options();
    let asked = match &args.memory {
        Some(text) => Some(bytes::parse(text).map_err(anyhow::Error::msg)?),
        None => None,
    };
    let device = DeviceArgs {
        device: args.device.clone(),
        threads: Some(options.threads),
        isa: None,
    };
    let device = device.device(asked)?;
    let memory = asked.unwrap_or_else(|| measure::device_memory(&device));
    let info = measure::device_info(&device, memory / u64::from(args.workers.max(1)))?;
    let devices: Vec<Device> = (0..args.workers.max(1))
        .map(|index| Device {
            id: PublicKey([index as u8; 32]),
            name: info.name.clone(),
            macs_per_second: info.macs_per_second,
            memory_bytes: info.memory_bytes,
        })
        .collect();
    let plan = plan_serving(
        &devices,
        &served.profile,
        model.deployment.layers,
        served.stages,
        served.pipelines,
        served.pages,
    )?;
    output.result(&text(&plan, &devices), &object(&plan));
    Ok(())
}

fn text(plan: &ServingPlan, devices: &[Device]) -> String {
    let mut rows = Vec::new();
    for (number, pipeline) in plan.pipelines.iter().enumerate() {
        let seats = pipeline.stages.iter().zip(&pipeline.devices);
        for (stage, (layers, device)) in seats.enumerate() {
            rows.push([
                number.to_string(),
                stage.to_string(),
                format!("{}..{}", layers.start, layers.end),
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
    lines.push(format!(
        "predicted: first token of a prompt of 512 tokens after {:.0} ms; {:.1} tokens/s for one \
         client, {:.0} tokens/s for many",
        plan.first_token_micros as f64 / 1e3,
        plan.tokens_per_second_one,
        plan.tokens_per_second_all
    ));
    lines.join("\n")
}

fn object(plan: &ServingPlan) -> serde_json::Value {
    let pipelines: Vec<_> = plan
        .pipelines
        .iter()
        .map(|pipeline| {
            let stages = pipeline
                .stages
                .iter()
                .map(|layers| [layers.start, layers.end]);
            json!({ "stages": stages.collect::<Vec<_>>(), "workers": pipeline.devices,
                "pages": pipeline.pages })
        })
        .collect();
    json!({
        "event": "preview", "pipelines": pipelines,
        "first_token_seconds": plan.first_token_micros as f64 / 1e6,
        "tokens_per_second_one": plan.tokens_per_second_one,
        "tokens_per_second_all": plan.tokens_per_second_all,
    })
}
