//! Unsloth Studio's keys.

use serde_yaml_ng::Value;

use super::{common, evaluation, trainer};
use crate::builder::JobBuilder;
use crate::dataset::{Dataset, Learnt, RowKind, TooLong};
use crate::length::Saves;
use crate::resolved::Rules;

/// Keys of LoRA.
const LORA: [&str; 6] = [
    "lora.lora_r",
    "lora.lora_alpha",
    "lora.lora_dropout",
    "lora.target_modules",
    "lora.use_rslora",
    "lora.use_dora",
];

pub fn read(b: &mut JobBuilder) {
    let is_full = adapter(b);
    b.copy_or("training.batch_size", "micro_batch_size", 1);
    b.copy_or(
        "training.gradient_accumulation_steps",
        "gradient_accumulation_steps",
        1,
    );
    b.copy_or("training.learning_rate", "learning_rate", 2e-4);
    b.copy_or("training.max_seq_length", "sequence_len", 2_048);
    b.copy_or("training.random_seed", "seed", 3_407);
    b.default("output_dir", "outputs", "training.output_dir");
    recompute(b);
    common::decay(b, "training.weight_decay", is_full, None);
    common::optimizer(b, "training.optim", "adamw_8bit");
    let has_warmup = common::schedule(b, "training.lr_scheduler_type", None, "linear");
    let warmup = common::warmup(
        b,
        "training.warmup_steps",
        "training.warmup_ratio",
        has_warmup,
    );
    let length = trainer::length(b, "training.max_steps", "training.num_epochs", 1.0);
    let saves = match b.number("training.save_steps") {
        None => Saves::Every(100),
        Some(steps) if steps >= 1.0 => Saves::Every(steps as u64),
        Some(share) if share > 0.0 => Saves::Share(share),
        Some(_) => Saves::Never,
    };
    common::kept(b, &[], 0);
    b.out.rules = Some(Rules {
        length,
        warmup,
        saves,
        evaluations: evaluations(b),
    });
    if !b.has("model") {
        b.missing(
            "model",
            "the Studio's files leave it to the page: --set model=DIR",
        );
    }
    data(b);
}

/// When the loss on held-out rows is taken: in steps, or as a share of them.
fn evaluations(b: &mut JobBuilder) -> Option<Saves> {
    let key = "training.eval_steps";
    let holds = evaluation::held_out(b, "val_set_size", "test_datasets");
    match (holds, b.number(key).filter(|steps| *steps > 0.0)) {
        (false, None) if b.has(key) => b.idle(key, "with this value it changes nothing"),
        (false, None) => {}
        (false, Some(_)) => b.refuse(key, evaluation::NO_ROWS, Some("0")),
        (true, Some(share)) if share < 1.0 => return Some(Saves::Share(share)),
        (true, Some(steps)) => return Some(Saves::Every(steps as u64)),
        (true, None) => return Some(Saves::End),
    }
    None
}

/// What is trained. Returns whether it is every weight.
fn adapter(b: &mut JobBuilder) -> bool {
    let is_full = match b.word("training.training_type").as_deref() {
        None => false,
        Some("lora" | "qlora") => false,
        Some("full") => true,
        Some(_) => {
            b.refuse("training.training_type", "it is lora or full", Some("lora"));
            false
        }
    };
    let adapter = if is_full { "full" } else { "lora" };
    match b.has("training.training_type") {
        true => b.put("adapter", adapter, b.from("training.training_type", "")),
        false => b.default("adapter", adapter, "training.training_type"),
    }
    if b.flag("training.load_in_4bit") == Some(true) {
        common::load_in(b, 4, "training.load_in_4bit", is_full);
    }
    match is_full {
        true => common::full_without(b, &LORA),
        false => {
            b.copy_or("lora.lora_r", "lora_r", 16);
            common::alpha(b, "lora.lora_alpha", "lora.use_rslora", Some(16.0));
            b.copy("lora.lora_dropout", "lora_dropout");
            common::dora(b, "lora.use_dora");
            common::targets(b, "lora.target_modules", None);
        }
    }
    is_full
}

fn recompute(b: &mut JobBuilder) {
    let key = "training.gradient_checkpointing";
    let on = match b.value(key) {
        None => return b.default("recompute", false, key),
        Some(Value::Bool(on)) => *on,
        Some(Value::String(word)) => !matches!(word.to_lowercase().as_str(), "" | "false" | "none"),
        Some(_) => return b.refuse(key, "it is unsloth, true, false or none", Some("true")),
    };
    b.put("recompute", on, b.from(key, ""));
}

fn data(b: &mut JobBuilder) {
    let learnt = match b.flag("training.train_on_completions") {
        Some(true) => Learnt::Answers,
        _ => Learnt::All,
    };
    let kind = match b.word("data.format_type").as_deref() {
        None | Some("auto") => RowKind::Guessed,
        Some("alpaca") => RowKind::AlpacaChat,
        Some("chatml" | "sharegpt") => RowKind::Chat,
        Some(_) => return b.refuse("data.format_type", "it is alpaca, chatml or sharegpt", None),
    };
    let Some(path) = b.text("data.dataset") else {
        return b.missing(
            "data.dataset",
            "the Studio's files leave it to the page: name a file",
        );
    };
    let mut dataset = Dataset::new("data.dataset", b.doc.place("data.dataset"), path, kind);
    dataset.path_key = "data.dataset".to_string();
    dataset.learnt = learnt;
    dataset.too_long = TooLong::Truncate;
    if b.word("data.format_type").as_deref() == Some("sharegpt") {
        dataset
            .fields
            .insert("messages", "conversations".to_string());
        dataset.fields.insert("role", "from".to_string());
        dataset.fields.insert("content", "value".to_string());
    }
    if let Some(field) = b.text("data.dataset_text_field") {
        dataset.fields.insert("text", field);
    }
    b.dataset(dataset);
}
