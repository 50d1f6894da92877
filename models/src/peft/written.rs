//! The `adapter_config.json` of an adapter that Concord has trained.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::config::{DecoderConfig, LoraSpec, UpdateShape};
use crate::error::ModelError;
use crate::export::replace_file;

/// PEFT's options that say where an adapter has updates and of which shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ShapeOptions {
    /// `r`.
    pub r: u32,
    /// `lora_alpha`: a whole number where it is one, as PEFT has it.
    pub lora_alpha: Value,
    /// `target_modules`: projections, or, where some layers have none, all modules by name.
    pub target_modules: Vec<String>,
    /// `rank_pattern`: modules of another rank.
    pub rank_pattern: BTreeMap<String, u32>,
    /// `alpha_pattern`: modules of another alpha.
    pub alpha_pattern: BTreeMap<String, Value>,
    /// `modules_to_save`: modules that are trained whole.
    pub modules_to_save: Option<Vec<String>>,
}

impl ShapeOptions {
    /// Those of updates on `targets`, by the names of the projections, of the shape `common` but
    /// for `others`; `modules` are all that have one, and `saved` are trained whole.
    pub fn new(
        common: UpdateShape,
        targets: Vec<String>,
        others: &BTreeMap<String, Option<UpdateShape>>,
        modules: impl Iterator<Item = String>,
        saved: Vec<String>,
    ) -> Self {
        let is_partial = others.values().any(Option::is_none);
        let other = |(module, shape): (&String, &Option<UpdateShape>)| {
            shape.map(|shape| (module.clone(), shape))
        };
        let others: Vec<_> = others.iter().filter_map(other).collect();
        let ranks = others.iter().filter(|(_, shape)| shape.rank != common.rank);
        let alphas = others
            .iter()
            .filter(|(_, shape)| shape.alpha != common.alpha);
        Self {
            r: common.rank,
            lora_alpha: json_alpha(common.alpha),
            target_modules: match is_partial {
                true => modules.collect(),
                false => targets,
            },
            rank_pattern: ranks
                .map(|(name, shape)| (name.clone(), shape.rank))
                .collect(),
            alpha_pattern: alphas
                .map(|(name, shape)| (name.clone(), json_alpha(shape.alpha)))
                .collect(),
            modules_to_save: (!saved.is_empty()).then_some(saved),
        }
    }
}

/// PEFT keeps a whole alpha as an integer. f32 holds integers exactly below 2^24.
fn json_alpha(alpha: f32) -> Value {
    match alpha.fract() == 0.0 && alpha < 16_777_216.0 {
        true => Value::from(alpha as u32),
        false => Value::from(alpha),
    }
}

/// The file that is written; its fields are in this order, sorted by name.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    alpha_pattern: BTreeMap<String, Value>,
    auto_mapping: Option<()>,
    base_model_name_or_path: &'a str,
    bias: &'a str,
    fan_in_fan_out: bool,
    inference_mode: bool,
    init_lora_weights: bool,
    layers_to_transform: Option<()>,
    lora_alpha: Value,
    lora_dropout: f32,
    modules_to_save: Option<Vec<String>>,
    peft_type: &'a str,
    r: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rank_pattern: BTreeMap<String, u32>,
    revision: Option<()>,
    target_modules: Vec<String>,
    task_type: &'a str,
    use_dora: bool,
    use_rslora: bool,
}

/// Writes an `adapter_config.json`, replacing an older one whole.
pub(super) fn write(
    path: &Path,
    lora: &LoraSpec,
    (model, base_model): (&DecoderConfig, &str),
    dropout: f32,
) -> Result<(), ModelError> {
    let targets = lora.targets.iter();
    let targets = targets.map(|target| model.projection_name(*target).to_string());
    let modules = lora.adapted(model).into_iter();
    let modules = modules.map(|adapted| adapted.matrix.module);
    let shape = {
        let saved = lora.saved.iter().cloned().collect();
        ShapeOptions::new(lora.common, targets.collect(), &lora.others, modules, saved)
    };
    let written = Written {
        alpha_pattern: shape.alpha_pattern,
        auto_mapping: None,
        base_model_name_or_path: base_model,
        bias: "none",
        fan_in_fan_out: false,
        inference_mode: true,
        init_lora_weights: true,
        layers_to_transform: None,
        lora_alpha: shape.lora_alpha,
        lora_dropout: dropout,
        modules_to_save: shape.modules_to_save,
        peft_type: "LORA",
        r: shape.r,
        rank_pattern: shape.rank_pattern,
        revision: None,
        target_modules: shape.target_modules,
        task_type: "CAUSAL_LM",
        use_dora: lora.use_dora,
        use_rslora: false,
    };
    let mut text = serde_json::to_string_pretty(&written).map_err(ModelError::json(path))?;
    text.push('\n');
    replace_file(path, |out| out.write_all(text.as_bytes()))
}
