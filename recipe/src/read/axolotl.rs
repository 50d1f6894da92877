//! Axolotl's keys.

use serde_yaml_ng::Value;

use super::{axolotl_data, common, evaluation};
use crate::builder::JobBuilder;
use crate::length::{Length, Saves, StepsRule, Warmup};
use crate::resolved::{Expected, Rules, TokenRole};

/// Keys of LoRA.
const LORA: [&str; 14] = [
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_linear",
    "peft_use_rslora",
    "peft_use_dora",
    "lora_rank_pattern",
    "lora_alpha_pattern",
    "peft_layers_to_transform",
    "peft_layers_pattern",
    "lora_modules_to_save",
    "lora_model_dir",
    "loraplus_lr_ratio",
];

/// Keys that say where an adapter is and of which shape, as Concord has them.
const SHAPE: [(&str, &str); 4] = [
    ("lora_rank_pattern", "lora_rank_pattern"),
    ("lora_alpha_pattern", "lora_alpha_pattern"),
    ("peft_layers_to_transform", "peft_layers_to_transform"),
    ("peft_layers_pattern", "peft_layers_pattern"),
];

/// Extensions that only make things faster, or write logs.
const IDLE_PLUGINS: [&str; 5] = [
    "cut_cross_entropy",
    "liger",
    "kernels",
    "expert_parallel",
    "swanlab",
];

pub fn read(b: &mut JobBuilder) {
    b.copy_or("sequence_len", "sequence_len", 512);
    b.copy_or("micro_batch_size", "micro_batch_size", 1);
    batch(b);
    let is_full = adapter(b);
    common::optimizer(b, "optimizer", "adamw_torch_fused");
    common::decay(b, "weight_decay", is_full, None);
    b.default("max_grad_norm", 1, "max_grad_norm");
    b.default("seed", 42, "seed");
    b.default("output_dir", "./model-out", "output_dir");
    recompute(b);
    for key in ["base_model", "learning_rate"] {
        if !b.has(key) {
            b.missing(key, "set it");
        }
    }
    axolotl_data::read(b);
    let has_warmup = schedule(b);
    let warmup = warmup(b, has_warmup);
    let length = length(b);
    let saves = saves(b);
    let evaluations = evaluations(b);
    measures(b);
    common::kept(b, &["save_total_limit"], 4);
    let is_wanted = b.flag("use_tensorboard") == Some(true);
    common::tensorboard(b, "use_tensorboard", is_wanted);
    b.out.rules = Some(Rules {
        length,
        warmup,
        saves,
        evaluations,
    });
    b.expect("special_tokens.bos_token", TokenRole::Begin);
    b.expect("special_tokens.eos_token", TokenRole::End);
    common::model_revision(b, &["revision_of_model", "model_revision"]);
    overrides(b);
    plugins(b);
    b.note(
        "one device is assumed: on more, gradient_accumulation_steps is Axolotl's times their \
         number",
    );
}

fn batch(b: &mut JobBuilder) {
    let micro = b.whole("micro_batch_size").unwrap_or(1).max(1);
    match b.whole("batch_size") {
        Some(batch) if b.has("gradient_accumulation_steps") => {
            let what = format!("is {batch}, beside gradient_accumulation_steps");
            b.problem("batch_size", what, "one of both is enough", Some("null"));
        }
        Some(batch) if batch % micro != 0 || batch == 0 => {
            b.refuse(
                "batch_size",
                "it must be a multiple of micro_batch_size",
                None,
            );
        }
        Some(batch) => {
            let source = b.from("batch_size", "divided by micro_batch_size");
            b.put("gradient_accumulation_steps", batch / micro, source);
        }
        None => {}
    }
    b.copy_or(
        "gradient_accumulation_steps",
        "gradient_accumulation_steps",
        1,
    );
}

/// What is trained. Returns whether it is every weight.
fn adapter(b: &mut JobBuilder) -> bool {
    let adapter = b.word("adapter").filter(|word| !word.is_empty());
    let (four, eight) = (b.flag("load_in_4bit"), b.flag("load_in_8bit"));
    let is_full = match adapter.as_deref() {
        None => true,
        Some("lora" | "qlora") => false,
        Some(_) => {
            b.refuse("adapter", "adapters are lora and qlora", None);
            false
        }
    };
    for (bits, key, given) in [(4, "load_in_4bit", four), (8, "load_in_8bit", eight)] {
        if given == Some(true) {
            common::load_in(b, bits, key, is_full);
        }
    }
    match adapter.as_deref() {
        None => b.default("adapter", "full", "adapter"),
        Some("qlora") if four != Some(true) => {
            let remedy = "qlora is LoRA on a base of 4 bits: set both";
            b.refuse("adapter", remedy, Some("lora"));
        }
        Some(_) => b.put("adapter", "lora", b.from("adapter", "")),
    }
    match is_full {
        true => {
            // The table has copied what it could.
            b.out.settings.retain(|setting| {
                !setting.key.starts_with("lora_") && !setting.key.starts_with("peft_")
            });
            b.out
                .settings
                .retain(|setting| setting.key != "initial_adapter");
            common::full_without(b, &LORA);
        }
        false => lora(b),
    }
    is_full
}

fn lora(b: &mut JobBuilder) {
    let continues = b.has("lora_model_dir");
    if !b.has("lora_r") && !continues {
        b.missing("lora_r", "set the rank of the adapter");
    }
    if !continues || b.has("lora_alpha") {
        common::alpha(b, "lora_alpha", "peft_use_rslora", None);
    }
    common::dora(b, "peft_use_dora");
    common::shape(b, &SHAPE);
    b.copy("lora_dropout", "lora_dropout");
    b.copy("loraplus_lr_ratio", "loraplus_lr_ratio");
    common::saved(b, "lora_modules_to_save");
    let linear = b.flag("lora_target_linear") == Some(true);
    let has_targets = b
        .names("lora_target_modules")
        .is_some_and(|names| !names.is_empty());
    if linear {
        if has_targets {
            b.idle(
                "lora_target_modules",
                "`lora_target_linear` adapts all projections",
            );
        }
    } else if has_targets {
        common::targets(b, "lora_target_modules", None);
    } else if !continues && !b.has("lora_target_modules") {
        b.missing(
            "lora_target_modules",
            "name projections, or set lora_target_linear: true",
        );
    }
}

fn recompute(b: &mut JobBuilder) {
    let on = match b.value("gradient_checkpointing") {
        None => return b.default("recompute", false, "gradient_checkpointing"),
        Some(Value::Bool(on)) => *on,
        // Such as `unsloth` or `offload`: how, not whether.
        Some(_) => true,
    };
    b.put("recompute", on, b.from("gradient_checkpointing", ""));
}

/// The curve of the learning rate. Returns whether it has a warm-up.
fn schedule(b: &mut JobBuilder) -> bool {
    let floor = b.number("cosine_min_lr_ratio");
    let is_rex = b.word("lr_scheduler").as_deref() == Some("rex");
    let has_warmup = match is_rex {
        true => rex(b),
        false => common::schedule(b, "lr_scheduler", Some("lr_scheduler_kwargs"), "cosine"),
    };
    if let Some(floor) = floor.filter(|floor| *floor != 0.0) {
        let curve = b.out.setting("lr_scheduler");
        let has_floor = curve.is_some_and(|s| s.value == "cosine_from_zero" || s.value == "rex");
        match has_floor && (0.0..=1.0).contains(&floor) {
            true => b.put("min_lr_ratio", floor, b.from("cosine_min_lr_ratio", "")),
            false => b.refuse(
                "cosine_min_lr_ratio",
                "it is a share, for a cosine or rex",
                Some("null"),
            ),
        }
    }
    has_warmup
}

/// The curve REX, which has a warm-up.
fn rex(b: &mut JobBuilder) -> bool {
    b.put("lr_scheduler", "rex", b.from("lr_scheduler", ""));
    if b.has("lr_scheduler_kwargs") {
        b.idle(
            "lr_scheduler_kwargs",
            "Axolotl gives them to no curve `rex`",
        );
    }
    true
}

fn warmup(b: &mut JobBuilder, has_warmup: bool) -> Warmup {
    if b.has("warmup_steps") && b.has("warmup_ratio") {
        let what = "is given beside warmup_steps, which Axolotl refuses";
        b.problem("warmup_ratio", what, "remove one", Some("null"));
    }
    let warmup = common::warmup(b, "warmup_steps", "warmup_ratio", has_warmup);
    match warmup {
        _ if !has_warmup => warmup,
        // 1 becomes 2 here, too.
        Warmup::Steps(1) => Warmup::Steps(2),
        Warmup::ShareUp(share) if !b.has("warmup_steps") => Warmup::ShareDown(share),
        _ if b.has("warmup_steps") || b.has("warmup_ratio") => warmup,
        _ => Warmup::Axolotl,
    }
}

fn length(b: &mut JobBuilder) -> Length {
    let num_epochs = b.number("num_epochs");
    if num_epochs.is_some_and(|epochs| epochs <= 0.0) {
        b.refuse("num_epochs", "it must be above 0", None);
    }
    match num_epochs {
        Some(_) => b.copy("num_epochs", "num_epochs"),
        None => b.default("num_epochs", 1, "num_epochs"),
    }
    Length {
        max_steps: b.whole("max_steps").filter(|steps| *steps > 0),
        num_epochs: Some(num_epochs.unwrap_or(1.0)),
        max_steps_per_epoch: None,
        rule: match b.flag("sample_packing") {
            Some(true) => StepsRule::WholePacked,
            _ => StepsRule::Whole,
        },
    }
}

fn saves(b: &mut JobBuilder) -> Saves {
    let (steps, times, strategy) = (
        b.number("save_steps"),
        b.number("saves_per_epoch"),
        b.word("save_strategy"),
    );
    let positive = |number: Option<f64>| number.filter(|number| *number > 0.0);
    match (positive(steps), positive(times), strategy.as_deref()) {
        (Some(_), Some(_), _) => {
            let what = "is given beside save_steps, which Axolotl refuses";
            b.problem("saves_per_epoch", what, "remove one", Some("null"));
            Saves::Never
        }
        (Some(steps), None, _) if steps >= 1.0 => Saves::Every(steps as u64),
        (Some(share), None, _) => Saves::Share(share),
        (None, Some(times), _) => Saves::PerEpoch(times),
        (None, None, Some("no" | "false" | "best")) => Saves::Never,
        (None, None, Some("steps")) => Saves::Every(500),
        (None, None, _) => Saves::PerEpoch(1.0),
    }
}

/// When the loss on held-out rows is taken: each epoch, if the file does not say it.
fn evaluations(b: &mut JobBuilder) -> Option<Saves> {
    let holds = evaluation::held_out(b, "val_set_size", "test_datasets");
    let times = evaluation::times(b, holds, Saves::PerEpoch(1.0));
    if !holds {
        return None;
    }
    evaluation::consequences(b, Some("early_stopping_patience"));
    let epochs = b.number("num_epochs").unwrap_or(1.0);
    // As Axolotl has them: steps, or their share of the job.
    let mut every = |steps: &str, times: &str| {
        let steps = b.number(steps).filter(|steps| *steps > 0.0);
        let times = b.number(times).filter(|times| *times > 0.0);
        steps.or(times.map(|times| 1.0 / (times * epochs)))
    };
    let both = every("save_steps", "saves_per_epoch").zip(every("eval_steps", "evals_per_epoch"));
    if both.is_some_and(|(save, eval)| save % eval == 0.0) {
        let how = "load_best_model_at_end, where a checkpoint falls on evaluations";
        b.default("load_best_model_at_end", true, how);
    }
    times
}

/// What is changed of the model: nothing may be.
fn overrides(b: &mut JobBuilder) {
    for key in ["model_config", "overrides_of_model_config"] {
        if b.value(key).is_some_and(|value| !value.is_mapping()) {
            b.refuse(key, "it is a mapping", Some("null"));
        }
    }
    if b.flag("resize_token_embeddings_to_32x") == Some(true) {
        let key = "resize_token_embeddings_to_32x".to_string();
        let place = b.doc.place(&key);
        b.out.expected.push(Expected {
            place,
            key,
            role: TokenRole::RowsOf32,
            text: "true".to_string(),
        });
    }
}

/// Other measures than the loss, which would be logged.
fn measures(b: &mut JobBuilder) {
    let metrics = b.names("eval_causal_lm_metrics");
    if b.flag("do_causal_lm_eval") != Some(true) {
        for key in ["do_causal_lm_eval", "eval_causal_lm_metrics"] {
            if b.has(key) {
                b.idle(key, "without do_causal_lm_eval the loss alone is taken");
            }
        }
        return;
    }
    if metrics.is_some_and(|names| names.iter().all(|name| name == "perplexity")) {
        let why = "perplexity is the exponential of the loss, which is taken";
        b.idle("do_causal_lm_eval", why);
        return;
    }
    let remedy = "the loss is the only measure: set eval_causal_lm_metrics to [perplexity], or \
                  remove both";
    b.refuse("do_causal_lm_eval", remedy, Some("false"));
}

fn plugins(b: &mut JobBuilder) {
    for name in b.names("plugins").unwrap_or_default() {
        let is_idle = IDLE_PLUGINS.iter().any(|idle| name.contains(idle));
        match is_idle {
            true => b.idle(
                "plugins",
                &format!("{name} makes things faster or writes logs, and changes no result"),
            ),
            false => {
                let what = format!("has {name}, which is not known");
                b.problem("plugins", what, "remove it from the list", None);
            }
        }
    }
}
