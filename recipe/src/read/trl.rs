//! TRL's keys, as its scripts and the alignment-handbook have them.

use super::trainer::Defaults;
use super::{common, evaluation, trainer, trl_data};
use crate::builder::JobBuilder;
use crate::resolved::TokenRole;

/// Keys of LoRA.
const LORA: [&str; 7] = [
    "lora_r",
    "lora_alpha",
    "lora_target_modules",
    "use_rslora",
    "use_dora",
    "lora_modules_to_save",
    "lora_dropout",
];

/// SFTConfig's own defaults.
const DEFAULTS: Defaults = Defaults {
    learning_rate: 2e-5,
    recompute: true,
};

pub fn read(b: &mut JobBuilder) {
    let is_full = b.flag("use_peft") != Some(true);
    match b.has("use_peft") {
        true => {
            let adapter = if is_full { "full" } else { "lora" };
            b.put("adapter", adapter, b.from("use_peft", ""));
        }
        false => b.default("adapter", "full", "use_peft"),
    }
    trl_data::read(b);
    let of_mixture = "dataset_mixture.test_split_size";
    let holds = evaluation::held_out(b, of_mixture, "test_datasets");
    trainer::read(b, &DEFAULTS, is_full, (holds, None));
    for (bits, key) in [(4, "load_in_4bit"), (8, "load_in_8bit")] {
        if b.flag(key) == Some(true) {
            common::load_in(b, bits, key, is_full);
        }
    }
    match is_full {
        true => common::full_without(b, &LORA),
        false => lora(b),
    }
    match (b.has("max_length"), b.has("max_seq_length")) {
        (true, true) => {
            let what = "is given beside max_length";
            b.problem("max_seq_length", what, "remove one", Some("null"));
        }
        (false, true) => b.copy("max_seq_length", "sequence_len"),
        _ => b.copy_or("max_length", "sequence_len", 1_024),
    }
    b.read.insert("max_seq_length".to_string());
    common::model_revision(b, &["model_revision"]);
    b.expect("eos_token", TokenRole::End);
}

fn lora(b: &mut JobBuilder) {
    b.copy_or("lora_r", "lora_r", 16);
    common::alpha(b, "lora_alpha", "use_rslora", Some(32.0));
    common::dora(b, "use_dora");
    common::targets(b, "lora_target_modules", Some(&["q_proj", "v_proj"]));
    b.copy_or("lora_dropout", "lora_dropout", 0.05);
    common::saved(b, "lora_modules_to_save");
}
