//! `adapter_config.json`, and the options of PEFT that Concord refuses.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::bad_selection::BadSelection;
use super::select::{Modules, RANKS, Selection};
use crate::config::{DecoderConfig, LoraSpec};
use crate::error::ModelError;
use crate::json::{self, shown};
use crate::neutral::Neutral;

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
const READ: [&str; 9] = [
    "lora_alpha",
    "r",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
];

/// The remedy for whatever an adapter computes beyond LoRA and DoRA.
pub(super) const MERGE: &str = "merge the adapter into the model with PEFT (merge_and_unload), \
    and give the folder of the merged model";

/// PEFT's name for every projection but the head.
const ALL_LINEAR: &str = "all-linear";

/// Reads a config, and refuses by name every option that makes the adapter compute something else
/// than low-rank updates.
pub(super) fn read(path: &Path, model: &DecoderConfig) -> Result<LoraSpec, ModelError> {
    let object = check_options(path)?;
    let file = ConfigFile {
        path,
        object: &object,
    };
    file.get("peft_type")?;
    let selected = file.selection()?.resolve(model);
    Ok(selected.map_err(|bad| file.of_selection(bad))?.spec)
}

/// The options of a config, none of which makes the adapter compute something else than low-rank
/// updates. What needs the model to be understood is not checked.
///
/// # Errors
/// [`ModelError::UnsupportedAdapter`] naming the option; where the file cannot be read.
pub fn check_options(path: &Path) -> Result<Map<String, Value>, ModelError> {
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
            "use_rslora" | "use_dora" => value.is_boolean() || value.is_null(),
            name => READ.contains(&name) || IGNORED.contains(&name) || is_off(value),
        };
        if !allowed {
            return Err(unsupported(option, value));
        }
    }
    Ok(object)
}

/// The options of a file.
struct ConfigFile<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
}

impl ConfigFile<'_> {
    fn get(&self, key: &'static str) -> Result<&Value, ModelError> {
        let missing = || ModelError::MissingKey {
            path: self.path.to_path_buf(),
            key,
        };
        self.object.get(key).ok_or_else(missing)
    }

    /// The value of an option, unless that switches it off.
    fn on(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !is_off(value))
    }

    fn bad(&self, key: &'static str, expected: impl Into<String>) -> ModelError {
        ModelError::BadValue {
            path: self.path.to_path_buf(),
            key,
            found: self.object.get(key).map(shown).unwrap_or_default(),
            expected: expected.into(),
        }
    }

    fn of_selection(&self, bad: BadSelection) -> ModelError {
        ModelError::BadValue {
            path: self.path.to_path_buf(),
            key: bad.option,
            found: bad.found,
            expected: bad.expected,
        }
    }

    fn selection(&self) -> Result<Selection, ModelError> {
        let ranks = format!("from {} to {}", RANKS.start(), RANKS.end());
        let r = rank(self.get("r")?);
        let r = r.ok_or_else(|| self.bad("r", format!("must be {ranks}")))?;
        let lora_alpha = alpha(self.get("lora_alpha")?);
        let lora_alpha =
            lora_alpha.ok_or_else(|| self.bad("lora_alpha", "must be a number above 0"))?;
        let targets = match self.modules("target_modules")? {
            Some(targets) => targets,
            None => {
                self.get("target_modules")?;
                return Err(self.bad("target_modules", "must name the adapted projections"));
            }
        };
        Ok(Selection {
            rank: r,
            alpha: lora_alpha,
            is_rank_stabilised: self.object.get("use_rslora") == Some(&Value::Bool(true)),
            use_dora: self.object.get("use_dora") == Some(&Value::Bool(true)),
            targets,
            exclude: self.modules("exclude_modules")?,
            layers: self.layers()?,
            layers_pattern: match self.on("layers_pattern") {
                None => Vec::new(),
                Some(Value::String(name)) => vec![name.clone()],
                Some(value) => texts(value)
                    .ok_or_else(|| self.bad("layers_pattern", "must be a text or a list"))?,
            },
            rank_pattern: self.pattern("rank_pattern", &ranks, rank)?,
            alpha_pattern: self.pattern("alpha_pattern", "numbers above 0", alpha)?,
            saved: match self.on("modules_to_save") {
                None => Vec::new(),
                Some(value) => texts(value)
                    .ok_or_else(|| self.bad("modules_to_save", "must be a list of names"))?,
            },
        })
    }

    fn modules(&self, key: &'static str) -> Result<Option<Modules>, ModelError> {
        let Some(value) = self.on(key) else {
            return Ok(None);
        };
        let modules = match value {
            Value::String(text) if text == ALL_LINEAR => Some(Modules::All),
            Value::String(text) => Some(Modules::Pattern(text.clone())),
            value => texts(value).map(Modules::names),
        };
        let modules = modules.ok_or_else(|| self.bad(key, "must be a text or a list of names"))?;
        Ok(Some(modules))
    }

    /// A list of indices, or one. An empty list is the same as none.
    fn layers(&self) -> Result<Option<Vec<u32>>, ModelError> {
        let index = |value: &Value| value.as_u64().and_then(|index| u32::try_from(index).ok());
        let layers = match self.on("layers_to_transform") {
            None => return Ok(None),
            Some(Value::Array(items)) => items.iter().map(index).collect(),
            Some(value) => index(value).map(|index| vec![index]),
        };
        let why = "must be the index of a layer, or a list of them";
        let layers = layers.ok_or_else(|| self.bad("layers_to_transform", why))?;
        Ok(Some(layers))
    }

    /// Expressions and what they give.
    fn pattern<T>(
        &self,
        key: &'static str,
        words: &str,
        read: fn(&Value) -> Option<T>,
    ) -> Result<Vec<(String, T)>, ModelError> {
        let entries = match self.on(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(entries)) => {
                let entries = entries.iter();
                entries
                    .map(|(name, value)| Some((name.clone(), read(value)?)))
                    .collect()
            }
            Some(_) => None,
        };
        entries.ok_or_else(|| self.bad(key, format!("must be names of modules with {words}")))
    }
}

fn rank(value: &Value) -> Option<u32> {
    let rank = u32::try_from(value.as_u64()?).ok()?;
    RANKS.contains(&rank).then_some(rank)
}

fn alpha(value: &Value) -> Option<f64> {
    let alpha = value.as_f64()?;
    (alpha > 0.0 && (alpha as f32).is_finite()).then_some(alpha)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    value.as_array()?.iter().map(text).collect()
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
        "peft_type" => "take a LoRA adapter, or merge this one into the model with PEFT",
        "task_type" => "take an adapter that was trained for CAUSAL_LM",
        _ => MERGE,
    }
}
