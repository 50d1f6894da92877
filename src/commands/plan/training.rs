//! The memory of a fine-tune.

use anyhow::bail;
use concord_coordinator::planner::TrainingPlan;
use concord_models::decoder::Trainable;
use concord_models::memory::{StageBytes, TrainingRun};
use concord_models::train::MomentForm;
use concord_proto::Layers;
use concord_proto::client::PlanChoice;
use serde_json::{Value, json};

use super::PlanPart;
use super::fit::{self, PLACED, Placed};
use super::model::PlannedModel;
use super::proposal::{planned, stages};
use super::remedies;
use crate::support::bytes::size;
use crate::support::layers::ends;
use crate::support::output::counted;
use crate::support::table::table;

const HEADINGS: [&str; 9] = [
    "stages",
    "layers",
    "weights",
    "state",
    "moments",
    "gradients",
    "activations",
    "workspace",
    "total",
];

/// The stages of a pipeline, and what fits where. A fine-tune that does not fit is an error only
/// where it `is_asked_for`.
///
/// # Errors
/// Where the workers have too little memory; says what would help.
pub fn parts(
    model: &PlannedModel,
    run: &TrainingRun,
    workers: &[u64],
    is_asked_for: bool,
) -> anyhow::Result<Vec<PlanPart>> {
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    for count in fit::stage_counts(&model.config) {
        let choice = PlanChoice::Fixed {
            stages: count,
            replicas: 1,
            shares: Vec::new(),
        };
        let planned = fit::tightest(count, |devices| planned(model, run, &choice, devices))?;
        for (stage, bytes) in stages(model, run, &planned) {
            rows.push(cells(count, stage, &bytes));
            objects.push(object(count, stage, &bytes));
        }
    }
    let text = format!(
        "\ntraining {}\n{}",
        in_words(model, run),
        table(HEADINGS, &rows)
    );
    let object = json!({ "event": "training", "stages": objects });
    let mut parts = vec![(text, object)];
    if workers.is_empty() {
        return Ok(parts);
    }
    match planned(model, run, &PlanChoice::Auto, &fit::devices(workers)) {
        Ok(planned) => parts.push(fit_part(&planned, workers)),
        Err(why) => {
            let helps = remedies::of(model, run, workers);
            let words = format!("the fine-tune does not fit: {why}{helps}");
            if is_asked_for {
                bail!(words);
            }
            let object = json!({ "event": "training_fit", "error": words });
            parts.push((format!("\n{words}"), object));
        }
    }
    Ok(parts)
}

fn in_words(model: &PlannedModel, run: &TrainingRun) -> String {
    let what = match &run.trainable {
        Trainable::Lora(lora) => {
            let own = model.config.projections().into_iter();
            let adapted = own.filter(|projection| lora.targets.contains(projection));
            let projections = counted(adapted.count() as u64, "projection");
            let ranks = match lora.ranks() {
                [least, most] if least < most => format!("ranks {least} to {most}"),
                [rank, _] => format!("rank {rank}"),
            };
            let places = match lora.others.values().any(Option::is_none) {
                true => ", not in all layers",
                false => "",
            };
            format!("a LoRA adapter of {ranks} on {projections}{places}")
        }
        Trainable::Full => "every weight".to_string(),
        Trainable::Nothing => "nothing".to_string(),
    };
    let recompute = if run.recompute {
        ", layers computed again"
    } else {
        ""
    };
    let moments = match run.moments {
        MomentForm::F32 => "",
        MomentForm::Bits8 => ", moments in 8 bits",
        MomentForm::FirstF32 => ", one moment",
        MomentForm::FirstBits8 => ", one moment in 8 bits",
        MomentForm::Neither => ", no moments",
    };
    format!(
        "{what}: {} of {} x {} tokens{recompute}{moments}",
        counted(run.microbatches.into(), "microbatch").replace("batchs", "batches"),
        run.micro_batch_size,
        run.sequence_len
    )
}

fn cells(count: u32, stage: Layers, bytes: &StageBytes) -> [String; 9] {
    let parts = [
        bytes.weights,
        bytes.state,
        bytes.moments,
        bytes.gradients,
        bytes.activations,
        bytes.workspace,
        bytes.total(),
    ];
    let [
        weights,
        state,
        moments,
        gradients,
        activations,
        workspace,
        total,
    ] = parts.map(size);
    [
        count.to_string(),
        stage.to_string(),
        weights,
        state,
        moments,
        gradients,
        activations,
        workspace,
        total,
    ]
}

fn object(count: u32, stage: Layers, bytes: &StageBytes) -> Value {
    json!({
        "stages": count, "layers": ends(stage), "weights_bytes": bytes.weights,
        "state_bytes": bytes.state, "moments_bytes": bytes.moments,
        "gradients_bytes": bytes.gradients, "activations_bytes": bytes.activations,
        "workspace_bytes": bytes.workspace, "total_bytes": bytes.total(),
    })
}

fn fit_part(planned: &TrainingPlan, workers: &[u64]) -> PlanPart {
    let devices = fit::devices(workers);
    let slots = planned.plan.workers().filter_map(|(slot, id)| {
        let worker = devices.iter().position(|device| device.id == id)?;
        Some(Placed {
            worker,
            layers: planned.plan.stages[slot.stage],
            needs: planned.stage_bytes[slot.stage],
            has: workers[worker],
        })
    });
    let placed: Vec<Placed> = slots.collect();
    let rows: Vec<_> = placed.iter().map(Placed::cells).collect();
    let text = format!(
        "\ntrained by {} of these workers\n{}",
        placed.len(),
        table(PLACED, &rows)
    );
    let objects: Vec<Value> = placed.iter().map(Placed::object).collect();
    (text, json!({ "event": "training_fit", "workers": objects }))
}
