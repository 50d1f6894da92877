//! What several tools have in common.

use serde_yaml_ng::Value;

use crate::builder::{JobBuilder, number};
use crate::length::Warmup;
use crate::resolved::Setting;
use crate::walk::is_one_of;

/// Optimizers that are AdamW in f32.
const ADAMW: [&str; 9] = [
    "adamw",
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_npu_fused",
    "adamw_hf",
    "adamw_apex_fused",
    "adamw_bnb",
    "paged_adamw",
    "paged_adamw_32bit",
];

/// Optimizers that are AdamW with states of 8 bits.
const ADAMW_8BIT: [&str; 5] = [
    "adamw_8bit",
    "adamw_bnb_8bit",
    "adamw_torch_8bit",
    "paged_adamw_8bit",
    "adamw_8bit_bnb",
];

/// Optimizers beside AdamW, and what they lack of its constants.
const OTHERS: [(&str, &str, &[&str]); 5] = [
    ("lion_32bit", "lion_32bit", &["adam_epsilon", "adam_eps"]),
    (
        "paged_lion_32bit",
        "lion_32bit",
        &["adam_epsilon", "adam_eps"],
    ),
    ("lion_8bit", "lion_8bit", &["adam_epsilon", "adam_eps"]),
    (
        "paged_lion_8bit",
        "lion_8bit",
        &["adam_epsilon", "adam_eps"],
    ),
    (
        "sgd",
        "sgd",
        &["adam_beta1", "adam_beta2", "adam_epsilon", "adam_eps"],
    ),
];
/// How many checkpoints are kept: the first of `keys` with a number above 0; `default` otherwise,
/// where 0 is all.
pub fn kept(b: &mut JobBuilder, keys: &[&'static str], default: u64) {
    for key in keys {
        let number = b.number(key).filter(|number| *number >= 1.0);
        if let Some(number) = number {
            let most = number.min(f64::from(u32::MAX)) as u64;
            b.put("save_total_limit", most, b.from(key, ""));
        }
    }
    let of = keys.first().copied().unwrap_or("save_total_limit");
    b.default("save_total_limit", default, of);
}

/// The revision of the base model: of a branch, a tag or a commit.
pub fn model_revision(b: &mut JobBuilder, keys: &[&'static str]) {
    for key in keys {
        let Some(revision) = b.text(key) else {
            continue;
        };
        if revision == "main" {
            b.idle(key, "it is the usual one");
        } else {
            let source = b.from(key, "of a model of the hub");
            b.out.model_revision = Some(Setting {
                key: "base_model",
                value: Value::from(revision),
                source,
            });
        }
    }
}

/// Whether TensorBoard's files are written, by `key`, and where.
pub fn tensorboard(b: &mut JobBuilder, key: &str, is_wanted: bool) {
    if is_wanted {
        b.put("report_to", "tensorboard", b.from(key, ""));
        b.copy("logging_dir", "logging_dir");
    } else if b.has("logging_dir") {
        b.idle("logging_dir", "no files of TensorBoard are written");
    }
}

/// The optimizer by its name.
pub fn optimizer(b: &mut JobBuilder, key: &str, default: &str) {
    let mut given = b.word(key);
    if given.as_deref() == Some("adamw_torch_4bit") {
        b.note("optimizer: its states have 8 bits here, and 4 in torchao, which is less exact");
        given = Some("adamw_8bit".to_string());
    }
    let name = given.as_deref().unwrap_or(default);
    let other = OTHERS.iter().find(|(theirs, ..)| *theirs == name);
    let own = if let Some((_, own, lacks)) = other {
        for key in lacks.iter().filter(|key| b.doc.get(key).is_some()) {
            b.idle(key, "the optimizer has no such constant");
        }
        own
    } else if ADAMW.contains(&name) {
        "adamw_torch"
    } else if ADAMW_8BIT.contains(&name) {
        "adamw_8bit"
    } else {
        b.refuse(
            key,
            "it is none of AdamW, Lion and SGD: set adamw_torch, adamw_8bit, lion_32bit, lion_8bit \
             or sgd",
            Some(instead_of(name)),
        );
        return;
    };
    let how = match own {
        "adamw_8bit" if given.is_some() => "AdamW with states of 8 bits, as NUMERICS.md says",
        "lion_8bit" => "Lion with a state of 8 bits, as NUMERICS.md says",
        "lion_32bit" | "sgd" => "",
        _ => "AdamW",
    };
    match given {
        Some(_) => b.put("optimizer", own, b.from(key, how)),
        None => b.default("optimizer", own, key),
    }
}

/// What to set in place of an optimizer that is not computed: one that takes as little memory.
fn instead_of(name: &str) -> &'static str {
    let small = [
        "4bit",
        "8bit",
        "adafactor",
        "came",
        "galore",
        "apollo",
        "lomo",
        "low_bit",
    ];
    if name.contains("lion") {
        "lion_32bit"
    } else if small.iter().any(|part| name.contains(part)) {
        "adamw_8bit"
    } else {
        "adamw_torch"
    }
}

/// The curve of the learning rate as Hugging Face's trainer has it, where warm-up begins at rate 0.
/// Returns whether the curve has a warm-up.
pub fn schedule(b: &mut JobBuilder, key: &str, kwargs: Option<&str>, default: &str) -> bool {
    let given = b.word(key);
    let floor = kwargs.and_then(|kwargs| floor(b, kwargs));
    let name = given.as_deref().unwrap_or(default);
    let own = match name {
        "cosine" | "cosine_with_min_lr" => "cosine_from_zero",
        "linear" => "linear_from_zero",
        "constant" => "constant",
        "constant_with_warmup" => "constant_with_warmup",
        "inverse_sqrt" => "inverse_sqrt",
        _ => {
            let remedy = "curves are cosine, linear, constant, constant_with_warmup, \
                          cosine_with_min_lr and inverse_sqrt";
            b.refuse(key, remedy, Some("cosine"));
            return true;
        }
    };
    if let (Some((kwargs, _)), false) = (&floor, name == "cosine_with_min_lr") {
        b.problem(
            kwargs,
            "belongs to cosine_with_min_lr",
            "remove it",
            Some("null"),
        );
    } else if let Some((kwargs, ratio)) = floor {
        let source = b.from(&kwargs, "");
        b.put("min_lr_ratio", ratio, source);
    } else if name == "cosine_with_min_lr" {
        b.problem(key, "needs lr_scheduler_kwargs.min_lr_rate", "set it", None);
    }
    match given {
        Some(_) => b.put(
            "lr_scheduler",
            own,
            b.from(key, "the first step of warm-up has rate 0"),
        ),
        None => b.default("lr_scheduler", own, key),
    }
    name != "constant"
}

/// The floor of a cosine, as a share of the peak, and its key.
fn floor(b: &mut JobBuilder, kwargs: &str) -> Option<(String, f64)> {
    let map = match b.value(kwargs)? {
        Value::Mapping(map) => map,
        // Some files have the keys as a text.
        value => {
            if !is_one_of(value, &[""]) {
                b.refuse(kwargs, "write `min_lr_rate: SHARE` as a mapping", None);
            }
            return None;
        }
    };
    let mut found = None;
    for (name, value) in map {
        let name = name.as_str().unwrap_or_default();
        let key = format!("{kwargs}.{name}");
        let share = number(value).filter(|share| (0.0..=1.0).contains(share));
        let peak = b
            .out
            .setting("learning_rate")
            .and_then(|rate| number(&rate.value));
        match (name, share, peak) {
            ("min_lr_rate", Some(share), _) => found = Some((key, share)),
            ("min_lr", Some(least), Some(peak)) if least <= peak => {
                found = Some((key, least / peak));
            }
            _ => b.refuse(
                &key,
                "known is min_lr_rate, a share of the peak from 0 to 1",
                None,
            ),
        }
    }
    found
}

/// Warm-up as Hugging Face's trainer has it. Where the curve has none, the keys change nothing.
pub fn warmup(b: &mut JobBuilder, steps: &str, ratio: &str, has_warmup: bool) -> Warmup {
    let (given, share) = (b.number(steps), b.number(ratio));
    if !has_warmup {
        for key in [steps, ratio] {
            if b.has(key) {
                b.idle(key, "the curve `constant` has no warm-up");
            }
        }
        return Warmup::Steps(0);
    }
    match (given, share) {
        (Some(given), _) if given >= 1.0 => Warmup::Steps(given as u64),
        (Some(given), _) if given > 0.0 => Warmup::ShareUp(given),
        (_, Some(share)) if (0.0..=1.0).contains(&share) => Warmup::ShareUp(share),
        (_, Some(_)) => {
            b.refuse(ratio, "a share is from 0 to 1", None);
            Warmup::Steps(0)
        }
        _ => Warmup::Steps(0),
    }
}

/// `lora_alpha`, and whether the scale is of rank-stabilised LoRA.
pub fn alpha(b: &mut JobBuilder, key: &str, rslora: &str, default: Option<f64>) {
    let given = b.number(key);
    match (given, default) {
        (Some(_), _) => b.copy(key, "lora_alpha"),
        (None, Some(alpha)) => b.default("lora_alpha", whole(alpha), key),
        (None, None) => b.missing(key, "set it: the adapter is scaled by it"),
    }
    if b.flag(rslora) == Some(true) {
        b.put("peft_use_rslora", true, b.from(rslora, ""));
    }
}

/// Whether the rows of adapted matrices have trained magnitudes (DoRA).
pub fn dora(b: &mut JobBuilder, key: &str) {
    if b.flag(key) == Some(true) {
        b.put("peft_use_dora", true, b.from(key, ""));
    }
}

/// Modules that are trained whole beside the adapter: a list, or a text with commas.
pub fn saved(b: &mut JobBuilder, key: &str) {
    match b.names(key) {
        None => {}
        Some(names) if names.is_empty() => b.idle(key, "it is empty"),
        Some(names) => {
            let names: Vec<Value> = names.into_iter().map(Value::from).collect();
            b.put("lora_modules_to_save", names, b.from(key, ""));
        }
    }
}

/// Keys that say where an adapter is and of which shape. An empty value is as good as no key.
pub fn shape(b: &mut JobBuilder, keys: &[(&str, &'static str)]) {
    for (key, own) in keys {
        match b.value(key) {
            None => {}
            Some(value) if is_one_of(value, &[""]) => b.idle(key, "it is empty"),
            Some(_) => b.copy(key, own),
        }
    }
}

/// A number as YAML would have it: without a point where it is whole.
pub fn whole(number: f64) -> Value {
    match number.fract() == 0.0 && number.abs() < 9e15 {
        true => Value::from(number as i64),
        false => Value::from(number),
    }
}

/// `lora_target_modules`: names, or an expression for them; all where the list has `all` or
/// `all-linear`.
pub fn targets(b: &mut JobBuilder, key: &str, default: Option<&[&str]>) {
    if let Some(Value::String(text)) = b.value(key)
        && text.contains(['*', '\\', '(', '|', '[', '^', '$', '+', '?'])
    {
        let source = b.from(key, "an expression for names of modules");
        return b.put("lora_target_modules", text.as_str(), source);
    }
    let Some(names) = b.names(key).filter(|names| !names.is_empty()) else {
        if let Some(default) = default {
            let names: Vec<Value> = default.iter().map(|name| Value::from(*name)).collect();
            b.default("lora_target_modules", names, key);
        }
        return;
    };
    if names
        .iter()
        .any(|name| matches!(name.as_str(), "all" | "all-linear"))
    {
        // Without the key Concord adapts every projection.
        return;
    }
    let mut names = names;
    names.sort_unstable();
    names.dedup();
    let names: Vec<Value> = names.into_iter().map(Value::from).collect();
    b.put("lora_target_modules", names, b.from(key, ""));
}

/// Says of keys of LoRA that they change nothing where every weight is trained.
pub fn full_without(b: &mut JobBuilder, keys: &[&str]) {
    for key in keys.iter().filter(|key| b.doc.get(key).is_some()) {
        b.read.insert(key.to_string());
        b.idle(key, "every weight is trained, without an adapter");
    }
}

/// Norms and biases have no weight decay in Hugging Face's trainer. An adapter trains them where it
/// has modules that are saved whole.
pub fn decay(b: &mut JobBuilder, key: &str, is_full: bool, default: Option<f64>) {
    let given = b.number(key);
    match (given, default) {
        (Some(_), _) => b.copy(key, "weight_decay"),
        (None, Some(default)) => b.default("weight_decay", default, key),
        (None, None) => {}
    }
    let trains_norms = is_full || b.out.setting("lora_modules_to_save").is_some();
    if trains_norms && given.or(default).is_some_and(|decay| decay != 0.0) {
        b.default("weight_decay_exempt", "norms_and_biases", key);
    }
}

/// What a base is quantised to.
pub fn load_in(b: &mut JobBuilder, bits: u8, key: &str, is_full: bool) {
    let (own, how) = match bits {
        4 => ("load_in_4bit", "NF4; its scales stay in f32"),
        _ => ("load_in_8bit", "GGUF's Q8_0"),
    };
    if is_full {
        let remedy = "weights that are trained are not quantised: remove it, or train an adapter";
        return b.refuse(key, remedy, Some("false"));
    }
    b.put(own, true, b.from(key, how));
}
