//! LLaMA-Factory's keys.

use super::trainer::Defaults;
use super::{common, evaluation, factory_data, trainer};
use crate::Files;
use crate::builder::JobBuilder;

/// Keys of LoRA.
const LORA: [&str; 9] = [
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "use_rslora",
    "use_dora",
    "additional_target",
    "adapter_name_or_path",
    "loraplus_lr_ratio",
];

/// The trainer's own defaults; activations are recomputed unless the file says otherwise.
const DEFAULTS: Defaults = Defaults {
    learning_rate: 5e-5,
    recompute: true,
};

pub fn read(b: &mut JobBuilder, files: Files) {
    let is_full = adapter(b);
    if let Some(off) = b.flag("disable_gradient_checkpointing") {
        let source = b.from("disable_gradient_checkpointing", "its opposite");
        b.put("recompute", !off, source);
    }
    factory_data::read(b, files);
    let holds = evaluation::held_out(b, "val_size", "eval_dataset");
    trainer::read(b, &DEFAULTS, is_full, (holds, Some("early_stopping_steps")));
    if !holds && b.has("early_stopping_steps") {
        b.idle(
            "early_stopping_steps",
            "no rows are held out to be evaluated",
        );
    }
    common::model_revision(b, &["model_revision"]);
    b.copy_or("cutoff_len", "sequence_len", 2_048);
    match is_full {
        true => common::full_without(b, &LORA),
        false => lora(b),
    }
    match b.whole("quantization_bit") {
        None => {}
        Some(4) => common::load_in(b, 4, "quantization_bit", is_full),
        Some(8) => common::load_in(b, 8, "quantization_bit", is_full),
        Some(_) => b.refuse("quantization_bit", "it is 4 or 8", Some("4")),
    }
    if let Some(off) = b.flag("disable_shuffling") {
        b.put("shuffle", !off, b.from("disable_shuffling", "its opposite"));
    }
}

/// What is trained. Returns whether it is every weight.
fn adapter(b: &mut JobBuilder) -> bool {
    match b.word("finetuning_type").as_deref() {
        None => {
            b.default("adapter", "lora", "finetuning_type");
            false
        }
        Some(word @ ("lora" | "full")) => {
            b.put("adapter", word, b.from("finetuning_type", ""));
            word == "full"
        }
        Some(_) => {
            let remedy = "only lora and full are computed";
            b.refuse("finetuning_type", remedy, Some("lora"));
            false
        }
    }
}

fn lora(b: &mut JobBuilder) {
    let given = b.names("adapter_name_or_path").unwrap_or_default();
    match given.as_slice() {
        [] => {}
        [one] => b.put(
            "initial_adapter",
            one.as_str(),
            b.from("adapter_name_or_path", ""),
        ),
        _ => b.refuse(
            "adapter_name_or_path",
            "one adapter is trained on: name one",
            None,
        ),
    }
    let continues = given.len() == 1;
    b.copy("lora_rank", "lora_r");
    if !continues {
        b.default("lora_r", 8, "lora_rank");
    }
    let rank = b.whole("lora_rank").unwrap_or(8) as f64;
    if !continues || b.has("lora_alpha") {
        common::alpha(b, "lora_alpha", "use_rslora", Some(2.0 * rank));
    }
    common::dora(b, "use_dora");
    b.copy("lora_dropout", "lora_dropout");
    b.copy("loraplus_lr_ratio", "loraplus_lr_ratio");
    common::targets(b, "lora_target", None);
    common::saved(b, "additional_target");
}
