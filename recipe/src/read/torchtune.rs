//! torchtune's keys. Components are named by their Python path.

use serde_yaml_ng::Value;

use super::common;
use crate::builder::JobBuilder;
use crate::dataset::{Dataset, Learnt, RowKind, TooLong};
use crate::length::{Length, Saves, StepsRule, Warmup};
use crate::resolved::Rules;

/// Keys of LoRA.
const LORA: [&str; 6] = [
    "model.lora_attn_modules",
    "model.apply_lora_to_mlp",
    "model.lora_rank",
    "model.lora_alpha",
    "model.lora_dropout",
    "model.use_dora",
];

/// Where optimizers come from.
const OPTIMIZERS: [(&str, &str); 6] = [
    ("torch.optim.AdamW", "adamw_torch"),
    ("bitsandbytes.optim.PagedAdamW", "adamw_torch"),
    ("bitsandbytes.optim.AdamW8bit", "adamw_8bit"),
    ("bitsandbytes.optim.PagedAdamW8bit", "adamw_8bit"),
    ("torchao.optim.AdamW8bit", "adamw_8bit"),
    ("torch.optim.SGD", "sgd"),
];

pub fn read(b: &mut JobBuilder) {
    let is_full = adapter(b);
    match is_full {
        true => common::full_without(b, &LORA),
        false => lora(b),
    }
    for key in ["checkpointer.checkpoint_dir", "output_dir", "batch_size"] {
        if !b.has(key) {
            b.missing(key, "set it");
        }
    }
    b.default(
        "gradient_accumulation_steps",
        1,
        "gradient_accumulation_steps",
    );
    b.copy_or("clip_grad_norm", "max_grad_norm", 0);
    b.copy_or("seed", "seed", 42);
    b.copy_or("enable_activation_checkpointing", "recompute", false);
    match b.has("tokenizer.max_seq_len") {
        true => b.copy("tokenizer.max_seq_len", "sequence_len"),
        false => b.default("sequence_len", "longest", "tokenizer.max_seq_len"),
    }
    optimizer(b);
    let warmup = schedule(b);
    let length = length(b);
    let saves = Saves::PerEpoch(1.0);
    let evaluations = evaluations(b);
    let kept = [
        "checkpointer.keep_last_n_checkpoints",
        "keep_last_n_checkpoints",
    ];
    common::kept(b, &kept, 0);
    b.out.rules = Some(Rules {
        length,
        warmup,
        saves,
        evaluations,
    });
    loss(b);
    if let Some(dataset) = dataset(b, "dataset") {
        b.dataset(dataset);
    }
    b.note(
        "one device is assumed: on more, gradient_accumulation_steps is the file's times their \
            number",
    );
}

/// What is trained, by the name of the builder. Returns whether it is every weight.
fn adapter(b: &mut JobBuilder) -> bool {
    let builder = b.text("model._component_").unwrap_or_default();
    let name = builder.rsplit('.').next().unwrap_or_default();
    let key = "model._component_";
    let quantised = name.starts_with("qlora_") || b.flag("model.quantize_base") == Some(true);
    let is_full = !name.starts_with("lora_") && !name.starts_with("qlora_");
    if builder.is_empty() {
        b.missing(key, "name the model's builder");
    }
    let adapter = if is_full { "full" } else { "lora" };
    b.put("adapter", adapter, b.from(key, "by its name"));
    if quantised {
        common::load_in(b, 4, key, is_full);
    }
    is_full
}

fn lora(b: &mut JobBuilder) {
    b.copy_or("model.lora_rank", "lora_r", 8);
    b.copy_or("model.lora_alpha", "lora_alpha", 16);
    b.copy("model.lora_dropout", "lora_dropout");
    common::dora(b, "model.use_dora");
    let drops = b.number("model.lora_dropout").unwrap_or(0.0) > 0.0;
    if drops && b.flag("model.use_dora") == Some(true) {
        let remedy = "with DoRA torchtune drops inputs of the adapter alone, PEFT and Concord \
                      those of the matrix, too";
        b.refuse("model.lora_dropout", remedy, Some("0"));
    }
    let key = "model.lora_attn_modules";
    let Some(mut names) = b.names(key) else {
        return b.missing(key, "name projections");
    };
    for name in &mut names {
        if name == "output_proj" {
            *name = "o_proj".to_string();
        }
    }
    if b.flag("model.apply_lora_to_mlp") == Some(true) {
        names.extend(["gate_proj", "up_proj", "down_proj"].map(str::to_string));
    }
    let names: Vec<Value> = names.into_iter().map(Value::from).collect();
    b.put(
        "lora_target_modules",
        names,
        b.from(key, "with those of apply_lora_to_mlp"),
    );
}

fn optimizer(b: &mut JobBuilder) {
    let name = b.text("optimizer._component_").unwrap_or_default();
    let own = OPTIMIZERS.iter().find(|(path, _)| *path == name);
    match own {
        Some((_, own)) => b.put("optimizer", *own, b.from("optimizer._component_", "")),
        None => {
            let remedy = "it is neither AdamW nor SGD";
            b.refuse("optimizer._component_", remedy, Some("torch.optim.AdamW"));
        }
    }
    b.copy_or("optimizer.lr", "learning_rate", 1e-3);
    let is_sgd = name == "torch.optim.SGD";
    let decay = if is_sgd { 0.0 } else { 0.01 };
    b.copy_or("optimizer.weight_decay", "weight_decay", decay);
    b.copy("optimizer.momentum", "momentum");
    b.copy("optimizer.nesterov", "nesterov");
    b.copy("optimizer.eps", "adam_epsilon");
    if let Some(Value::Sequence(betas)) = b.value("optimizer.betas") {
        let source = b.from("optimizer.betas", "");
        match betas.as_slice() {
            [first, second] => {
                b.put("adam_beta1", first.clone(), source.clone());
                b.put("adam_beta2", second.clone(), source);
            }
            _ => b.refuse("optimizer.betas", "it is a list of two numbers", None),
        }
    }
}

fn schedule(b: &mut JobBuilder) -> Warmup {
    let Some(name) = b.text("lr_scheduler._component_") else {
        b.default("lr_scheduler", "constant", "lr_scheduler");
        return Warmup::Steps(0);
    };
    match name.ends_with(".get_cosine_schedule_with_warmup") {
        true => {
            let source = b.from("lr_scheduler._component_", "the first step has rate 0");
            b.put("lr_scheduler", "cosine_from_zero", source);
        }
        false => b.refuse("lr_scheduler._component_", "only its cosine is known", None),
    }
    if b.number("lr_scheduler.num_cycles")
        .is_some_and(|cycles| cycles != 0.5)
    {
        b.refuse(
            "lr_scheduler.num_cycles",
            "half a cosine is computed",
            Some("0.5"),
        );
    }
    Warmup::Steps(b.whole("lr_scheduler.num_warmup_steps").unwrap_or(0))
}

fn length(b: &mut JobBuilder) -> Length {
    let epochs = b.number("epochs");
    b.copy("epochs", "num_epochs");
    if epochs.is_none() {
        b.missing("epochs", "set it");
    }
    Length {
        max_steps: None,
        num_epochs: epochs,
        max_steps_per_epoch: b.whole("max_steps_per_epoch").filter(|steps| *steps > 0),
        rule: StepsRule::PerEpochDown,
    }
}

fn loss(b: &mut JobBuilder) {
    let Some(name) = b.text("loss._component_") else {
        return;
    };
    match name.contains("CrossEntropy") || name.contains("CEWith") {
        true => b.idle(
            "loss._component_",
            "the loss is the cross-entropy, whole or in pieces",
        ),
        false => b.refuse("loss._component_", "the loss is the cross-entropy", None),
    }
}

/// When the loss on the data set for it is taken; without a number of steps it never is.
fn evaluations(b: &mut JobBuilder) -> Option<Saves> {
    let (sets, key) = ("dataset_val", "run_val_every_n_steps");
    match (b.has(sets), b.whole(key).filter(|steps| *steps > 0)) {
        (true, None) => b.idle(sets, "without run_val_every_n_steps no loss on it is taken"),
        (false, Some(_)) => b.refuse(key, "it needs dataset_val", Some("null")),
        (false, None) => {}
        (true, Some(steps)) => {
            let dataset = dataset(b, sets);
            b.out.test_datasets.extend(dataset);
            return Some(Saves::Every(steps));
        }
    }
    None
}

/// The data set whose keys are within `at`.
fn dataset(b: &mut JobBuilder, at: &str) -> Option<Dataset> {
    let within = |name: &str| format!("{at}.{name}");
    let key = &within("_component_");
    let Some(component) = b.text(key) else {
        b.missing(key, "name a data set");
        return None;
    };
    let name = component.rsplit('.').next().unwrap_or_default();
    let (kind, all, usual) = match name {
        "alpaca_dataset" => (RowKind::Alpaca, true, Some("tatsu-lab/alpaca")),
        "alpaca_cleaned_dataset" => (RowKind::Alpaca, true, Some("yahma/alpaca-cleaned")),
        "chat_dataset" => (RowKind::Chat, false, None),
        "text_completion_dataset" => (RowKind::Completion, true, None),
        _ => {
            let remedy = "builders that are read: alpaca_dataset, alpaca_cleaned_dataset, \
                          chat_dataset and text_completion_dataset";
            b.refuse(key, remedy, None);
            return None;
        }
    };
    let (source, files) = (b.text(&within("source")), b.text(&within("data_files")));
    let Some(path) = files.or(source).or(usual.map(str::to_string)) else {
        b.missing(&within("data_files"), "name a file");
        return None;
    };
    let mut dataset = Dataset::new(at, b.doc.place(at), path, kind);
    dataset.path_key = within("data_files");
    dataset.too_long = TooLong::Truncate;
    let all = b.flag(&within("train_on_input")).unwrap_or(all);
    dataset.learnt = if all { Learnt::All } else { Learnt::Answers };
    dataset.name = b.text(&within("name")).or(b.text(&within("subset")));
    dataset.split = b.text(&within("split"));
    columns(b, at, &mut dataset);
    Some(dataset)
}

fn columns(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let within = |name: &str| format!("{at}.{name}");
    if let Some(column) = b.text(&within("column")) {
        dataset.fields.insert("text", column);
    }
    if let Some(column) = b.text(&within("conversation_column")) {
        dataset.fields.insert("messages", column);
    }
    match b.word(&within("conversation_style")).as_deref() {
        Some("sharegpt") => {
            dataset.fields.insert("role", "from".to_string());
            dataset.fields.insert("content", "value".to_string());
        }
        None | Some("openai") => {}
        Some(_) => {
            let remedy = "it is sharegpt or openai";
            b.refuse(&within("conversation_style"), remedy, None);
        }
    }
    let key = &within("column_map");
    let Some(Value::Mapping(map)) = b.value(key) else {
        return;
    };
    for (name, column) in map {
        let meaning = match name.as_str() {
            Some("instruction") => "instruction",
            Some("input") => "input",
            Some("output") => "output",
            _ => {
                b.refuse(key, "it has instruction, input and output", None);
                return;
            }
        };
        let column = column.as_str().unwrap_or_default().to_string();
        dataset.fields.insert(meaning, column);
    }
}
