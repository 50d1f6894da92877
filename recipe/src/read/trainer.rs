//! The keys of transformers' trainer, for the tools that build upon it.

use super::{common, evaluation};
use crate::builder::JobBuilder;
use crate::length::{Length, Saves, StepsRule};
use crate::resolved::Rules;

/// Defaults in which the tools differ.
pub struct Defaults {
    pub learning_rate: f64,
    pub recompute: bool,
}

/// Everything but data, adapter and sequence length. `holds` says whether rows are held out,
/// `patience` is the tool's key for stopping early.
pub fn read(
    b: &mut JobBuilder,
    defaults: &Defaults,
    is_full: bool,
    (holds, patience): (bool, Option<&str>),
) {
    b.copy_or("learning_rate", "learning_rate", defaults.learning_rate);
    b.copy_or("per_device_train_batch_size", "micro_batch_size", 8);
    b.copy_or(
        "gradient_accumulation_steps",
        "gradient_accumulation_steps",
        1,
    );
    b.copy_or("output_dir", "output_dir", "trainer_output");
    let has_warmup = common::schedule(
        b,
        "lr_scheduler_type",
        Some("lr_scheduler_kwargs"),
        "linear",
    );
    let warmup = common::warmup(b, "warmup_steps", "warmup_ratio", has_warmup);
    common::decay(b, "weight_decay", is_full, None);
    common::optimizer(b, "optim", "adamw_torch_fused");
    b.default("max_grad_norm", 1, "max_grad_norm");
    b.default("seed", 42, "seed");
    if let Some(on) = b.flag("gradient_checkpointing") {
        b.put("recompute", on, b.from("gradient_checkpointing", ""));
    }
    b.default("recompute", defaults.recompute, "gradient_checkpointing");
    let length = length(b, "max_steps", "num_train_epochs", 3.0);
    let saves = saves(b, "save_steps", 500);
    common::kept(b, &["save_total_limit"], 0);
    report_to(b);
    b.out.rules = Some(Rules {
        length,
        warmup,
        saves,
        evaluations: evaluation::times(b, holds, Saves::End),
    });
    if holds {
        evaluation::consequences(b, patience);
    }
    if !b.has("model_name_or_path") {
        b.missing("model_name_or_path", "set it");
    }
    b.note(
        "one device is assumed: on more, gradient_accumulation_steps is the file's times their \
         number",
    );
}

/// Steps, or else epochs; steps of 0 or -1 are none.
pub fn length(b: &mut JobBuilder, steps: &str, epochs: &'static str, default: f64) -> Length {
    let max_steps = b.number(steps).filter(|steps| *steps > 0.0);
    let given = b.number(epochs);
    if max_steps.is_some() {
        b.copy(steps, "max_steps");
        if given.is_some_and(|epochs| epochs > 0.0) {
            b.idle(epochs, &format!("`{steps}` decides"));
        }
    } else if given.is_some_and(|epochs| epochs > 0.0) {
        b.copy(epochs, "num_epochs");
    } else {
        b.default("num_epochs", common::whole(default), epochs);
    }
    Length {
        max_steps: max_steps.map(|steps| steps as u64),
        num_epochs: Some(given.filter(|epochs| *epochs > 0.0).unwrap_or(default)),
        max_steps_per_epoch: None,
        rule: StepsRule::PerEpochUp,
    }
}

fn saves(b: &mut JobBuilder, key: &str, default: u64) -> Saves {
    let steps = b.number(key).filter(|steps| *steps > 0.0);
    match b.word("save_strategy").as_deref() {
        Some("no" | "false" | "best") => Saves::Never,
        Some("epoch") => Saves::PerEpoch(1.0),
        _ => match steps {
            Some(share) if share < 1.0 => Saves::Share(share),
            Some(steps) => Saves::Every(steps as u64),
            None => Saves::Every(default),
        },
    }
}

/// Where steps are reported to, besides the log.
fn report_to(b: &mut JobBuilder) {
    let trackers = b.names("report_to").unwrap_or_default();
    let (ours, others): (Vec<_>, Vec<_>) = trackers
        .into_iter()
        .filter(|name| name != "none")
        .partition(|name| matches!(name.as_str(), "tensorboard" | "all"));
    common::tensorboard(b, "report_to", !ours.is_empty());
    if !others.is_empty() {
        let why = format!(
            "nothing is sent to {}: steps are logged in output_dir/log.jsonl{}",
            others.join(", "),
            match ours.is_empty() {
                true => {
                    ", and with `report_to: tensorboard` as event files, which W&B (`wandb sync`) \
                     and trackio (`import_tf_events`) read"
                }
                false => ", and as event files of TensorBoard",
            }
        );
        match ours.is_empty() {
            true => b.idle("report_to", &why),
            false => b.note(format!("report_to: {why}")),
        }
    }
}
