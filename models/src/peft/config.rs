//! `adapter_config.json`, and the options of PEFT that Concord refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{DecoderConfig, LayerMatrix, Projection};
use crate::error::ModelError;
use crate::export::replace_file;
use crate::json::{self, shown};
use crate::neutral::Neutral;

/// Largest rank that is accepted; bounds how much a config can make the reader allocate.
const RANK_MAX: u64 = 1 << 14;

/// Options that do not change what a trained adapter computes, whatever their value. Dropout acts
/// in training only, and the last four chose the initial values of the factors.
const IGNORED: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
];

/// Options that are read.
const READ: [&str; 2] = ["lora_alpha", "r"];

/// The remedy for whatever an adapter computes beyond `W + alpha / r * B A`.
pub(super) const MERGE: &str = "merge the adapter into the model with PEFT (merge_and_unload), \
    and give the folder of the merged model";

/// PEFT's name for every projection but the head.
const ALL_LINEAR: &str = "all-linear";

/// The part of `adapter_config.json` that decides what the adapter computes.
pub(super) struct LoraConfig {
    pub(super) r: u32,
    pub(super) alpha: f32,
    pub(super) targets: Vec<Projection>,
}

/// Reads a config, and refuses by name every option that makes the adapter compute something else
/// than `W + alpha / r * B A`.
pub(super) fn read(path: &Path, model: &DecoderConfig) -> Result<LoraConfig, ModelError> {
    let bytes = fs::read(path).map_err(ModelError::io("read", path))?;
    let object = json::object(path, &bytes)?;
    let unsupported = |option: &str, found: &Value| ModelError::UnsupportedAdapter {
        path: path.to_path_buf(),
        option: option.to_string(),
        found: shown(found),
        remedy: remedy(option),
    };
    for (option, value) in &object {
        let allowed = match option.as_str() {
            "peft_type" => value == "LORA",
            // Other tasks put another head on the model.
            "task_type" => value.is_null() || value == "CAUSAL_LM",
            "bias" => value.is_null() || value == "none",
            // The other named kinds (pissa, olora and so on) change the base weights, too.
            "init_lora_weights" => {
                let kinds = ["gaussian", "orthogonal", "eva"];
                value.is_boolean() || kinds.iter().any(|kind| value == kind)
            }
            "target_modules" => value.is_array() || value == ALL_LINEAR,
            "exclude_modules" => excludes_nothing(value, &object),
            "use_rslora" => value.is_boolean() || value.is_null(),
            name => READ.contains(&name) || IGNORED.contains(&name) || is_off(value),
        };
        if !allowed {
            return Err(unsupported(option, value));
        }
    }
    let get = |key: &'static str| {
        let missing = || ModelError::MissingKey {
            path: path.to_path_buf(),
            key,
        };
        object.get(key).ok_or_else(missing)
    };
    let bad = |key, found: &Value, expected: String| ModelError::BadValue {
        path: path.to_path_buf(),
        key,
        found: shown(found),
        expected,
    };
    get("peft_type")?;
    let r = get("r")?;
    let rank = r
        .as_u64()
        .filter(|rank| (1..=RANK_MAX).contains(rank))
        .map(|rank| rank as u32)
        .ok_or_else(|| bad("r", r, format!("must be from 1 to {RANK_MAX}")))?;
    // With this option PEFT scales by alpha / sqrt(r), which is (alpha sqrt(r)) / r.
    let stretch = match object.get("use_rslora") {
        Some(Value::Bool(true)) => f64::from(rank).sqrt(),
        _ => 1.0,
    };
    let alpha = get("lora_alpha")?;
    Ok(LoraConfig {
        r: rank,
        alpha: alpha
            .as_f64()
            .map(|alpha| (alpha * stretch) as f32)
            .filter(|alpha| alpha.is_finite() && *alpha > 0.0)
            .ok_or_else(|| bad("lora_alpha", alpha, "must be a number above 0".to_string()))?,
        targets: targets(path, get("target_modules")?, model)?,
    })
}

/// Whether `exclude_modules` leaves out none of the targets: PEFT compares the ends of names.
fn excludes_nothing(value: &Value, object: &Map<String, Value>) -> bool {
    let targets = object.get("target_modules").and_then(Value::as_array);
    let last = |name: &Value| Some(name.as_str()?.rsplit('.').next()?.to_string());
    match (value, targets) {
        (Value::Array(names), Some(targets)) => {
            let targets: Vec<Option<String>> = targets.iter().map(last).collect();
            names.iter().all(|name| !targets.contains(&last(name)))
        }
        _ => is_off(value),
    }
}

/// Whether a value switches an option off.
fn is_off(value: &Value) -> bool {
    [Neutral::Empty, Neutral::False]
        .iter()
        .any(|off| off.holds(value))
}

/// What to do about an option that is not supported.
fn remedy(option: &str) -> &'static str {
    match option {
        "target_modules" => {
            "list the adapted projections by name, or take \"all-linear\" if all are adapted"
        }
        "exclude_modules" => {
            "leave the excluded projections out of target_modules, and remove the option"
        }
        "peft_type" => "take a LoRA adapter, or merge this one into the model with PEFT",
        "task_type" => "take an adapter that was trained for CAUSAL_LM",
        _ => MERGE,
    }
}

/// The adapted projections. As in PEFT, a name stands for all modules whose names end in it; PEFT
/// itself writes whole module names for "all-linear". Each name must match at least one module, and
/// a projection must be adapted in every layer and every expert, or in none.
fn targets(
    path: &Path,
    value: &Value,
    model: &DecoderConfig,
) -> Result<Vec<Projection>, ModelError> {
    let own = model.projections();
    if value == ALL_LINEAR {
        return Ok(own);
    }
    let names = value.as_array().map(Vec::as_slice).unwrap_or(&[]);
    let all: Vec<LayerMatrix> = (0..model.layers)
        .flat_map(|layer| model.layer_matrices(layer))
        .collect();
    let mut known: BTreeMap<&str, Projection> = BTreeMap::new();
    let mut counts: BTreeMap<Projection, usize> = BTreeMap::new();
    for matrix in &all {
        known.insert(&matrix.module, matrix.projection);
        *counts.entry(matrix.projection).or_default() += 1;
    }
    let mut found: BTreeMap<Projection, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let name = name.as_str().unwrap_or_default();
        if let Some((module, projection)) = known.get_key_value(name) {
            found.entry(*projection).or_default().insert(module);
            continue;
        }
        let mut is_some = false;
        for LayerMatrix {
            projection, module, ..
        } in &all
        {
            let ends = module.strip_suffix(name);
            if !name.is_empty() && ends.is_some_and(|rest| rest.ends_with('.')) {
                found.entry(*projection).or_default().insert(module);
                is_some = true;
            }
        }
        if !is_some {
            name.parse::<Projection>()?;
            let known: Vec<&str> = own.iter().map(|p| model.projection_name(*p)).collect();
            let expected = format!("this model's projections are {}", known.join(", "));
            return Err(bad_targets(path, name, expected));
        }
    }
    let partly = found
        .iter()
        .find(|(projection, modules)| modules.len() < counts[projection]);
    if let Some((projection, modules)) = partly {
        let name = model.projection_name(*projection);
        let expected = format!(
            "{name} is adapted in {} of {} modules, which must be all or none: {MERGE}",
            modules.len(),
            counts[projection]
        );
        return Err(bad_targets(path, name, expected));
    }
    Ok(found.into_keys().collect())
}

fn bad_targets(path: &Path, found: &str, expected: String) -> ModelError {
    ModelError::BadValue {
        path: path.to_path_buf(),
        key: "target_modules",
        found: shown(found),
        expected,
    }
}

/// The file that is written; its fields are in this order, sorted by name.
#[derive(Serialize)]
struct Written<'a> {
    auto_mapping: Option<()>,
    base_model_name_or_path: &'a str,
    bias: &'a str,
    fan_in_fan_out: bool,
    inference_mode: bool,
    init_lora_weights: bool,
    layers_to_transform: Option<()>,
    lora_alpha: Value,
    lora_dropout: f32,
    modules_to_save: Option<()>,
    peft_type: &'a str,
    r: u32,
    revision: Option<()>,
    target_modules: Vec<&'a str>,
    task_type: &'a str,
    use_dora: bool,
    use_rslora: bool,
}

/// Writes an `adapter_config.json`, replacing an older one whole.
pub(super) fn write(
    path: &Path,
    config: &LoraConfig,
    (model, base_model): (&DecoderConfig, &str),
) -> Result<(), ModelError> {
    let alpha = config.alpha;
    let written = Written {
        auto_mapping: None,
        base_model_name_or_path: base_model,
        bias: "none",
        fan_in_fan_out: false,
        inference_mode: true,
        init_lora_weights: true,
        layers_to_transform: None,
        // PEFT keeps a whole alpha as an integer. f32 holds integers exactly below 2^24.
        lora_alpha: if alpha.fract() == 0.0 && alpha < 16_777_216.0 {
            Value::from(alpha as u32)
        } else {
            Value::from(alpha)
        },
        lora_dropout: 0.0,
        modules_to_save: None,
        peft_type: "LORA",
        r: config.r,
        revision: None,
        target_modules: config
            .targets
            .iter()
            .map(|target| model.projection_name(*target))
            .collect(),
        task_type: "CAUSAL_LM",
        use_dora: false,
        use_rslora: false,
    };
    let mut text = serde_json::to_string_pretty(&written).map_err(ModelError::json(path))?;
    text.push('\n');
    replace_file(path, |out| out.write_all(text.as_bytes()))
}
