//! Checks that the weights in a folder are those with which a proof ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use concord_kernels::Tensor;
use concord_kernels::packed::QuantFormat;
use concord_models::ModelError;
use concord_models::config::UpdateShape;
use concord_models::peft::{self, Adapter, ShapeOptions};
use concord_models::weights::{ModelFolder, TensorFile};
use concord_proto::{AdapterSpec, Claim, Digest, LoraUpdates, UpdateSize};
use concord_runtime::tensor_blob;
use concord_verify::training::bundle::Bundle;
use serde_json::{Value, json};

use crate::support::blobs::BlobSet;
use crate::support::load_in;

/// Files that make a folder a full model, or that programs would read as its weights.
const MODEL_FILES: [&str; 5] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Files that make a folder an adapter, or that programs would read as its weights.
const ADAPTER_FILES: [&str; 3] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
];

/// The result of checking the base model of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The adapter names the very model that it was trained on, which was quantised as it was read
    /// where there is a format.
    Same(String, Option<QuantFormat>),
    /// The model that it names is not in a folder of this machine.
    NotHere(String),
}

/// Compares the base model that an adapter names with that of the job. `None` for a full fine-tune.
///
/// # Errors
/// Where it is another model, or cannot be read.
pub fn check_base(bundle: &Bundle, folder: &Path) -> anyhow::Result<Option<Base>> {
    if bundle.spec.adapter == AdapterSpec::Full {
        return Ok(None);
    }
    let path = folder.join("adapter_config.json");
    let place = path.display();
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {place}"))?;
    let config: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{place}: not valid JSON"))?;
    let name = config["base_model_name_or_path"].as_str();
    let name = name.unwrap_or_default().to_string();
    if name.is_empty() || !concord_models::hub::is_here(&name) {
        return Ok(Some(Base::NotHere(name)));
    }
    let found = BlobSet::default().model(&ModelFolder::open(Path::new(&name))?)?;
    if found == bundle.spec.model {
        return Ok(Some(Base::Same(name, None)));
    }
    // The spec has the numbers that the job was trained on, and not how they came about.
    for format in QuantFormat::ALL {
        let quantized = load_in::open(Path::new(&name), Some(format));
        // A model that cannot be quantised was not.
        if let Ok(base) = quantized
            && BlobSet::default().model(&base)? == bundle.spec.model
        {
            return Ok(Some(Base::Same(name, Some(format))));
        }
    }
    bail!(
        "{place}: `base_model_name_or_path` is {name}, which is not the model that the adapter \
             was trained on: it hashes to {}, the job's to {}",
        found.short(),
        bundle.spec.model.short()
    )
}

/// Checks each trained tensor in `folder` against the claims of the last step of a valid bundle, or
/// against those of its best evaluation where the job keeps that.
/// Returns the number of tensors.
///
/// # Errors
/// Naming the file and the tensor that is missing, unknown or different.
pub fn check(bundle: &Bundle, folder: &Path) -> anyhow::Result<usize> {
    let proven = last_values(bundle)?;
    check_kind(bundle, folder)?;
    match &bundle.spec.adapter {
        AdapterSpec::Full => {
            let model = ModelFolder::open(folder)?;
            let place = folder.display().to_string();
            compare(&proven, &place, |name| model.load(name))?;
        }
        AdapterSpec::Lora(updates) => {
            let modules = bundle.spec.trainable.iter();
            let modules = modules.filter_map(|tensor| Adapter::module_of(&tensor.name));
            let expected = shape_options(updates, modules.map(str::to_string));
            let path = folder.join("adapter_config.json");
            check_config(&path, &expected, updates.use_dora)?;
            let path = folder.join("adapter_model.safetensors");
            let file = TensorFile::open(&path)?;
            if let Some(strange) = file.names().find(|name| !proven.contains_key(*name)) {
                bail!("{}: the job trained no tensor `{strange}`", path.display());
            }
            compare(&proven, &path.display().to_string(), |name| file.load(name))?;
        }
    }
    Ok(proven.len())
}

/// Refuses a folder that is both a model and an adapter: programs would use one of the two, perhaps
/// the one that is not checked here.
fn check_kind(bundle: &Bundle, folder: &Path) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Of models in other formats there may be parts of any name.
    let is_of_model = |name: &String| {
        let name = name.as_str();
        MODEL_FILES.contains(&name)
            || name.ends_with(".gguf")
            || name.ends_with(".pth")
            || name.starts_with("pytorch_model-")
    };
    let is_other = |name: &String| match &bundle.spec.adapter {
        AdapterSpec::Full => ADAPTER_FILES.contains(&name.as_str()),
        AdapterSpec::Lora(_) => is_of_model(name),
    };
    let Some(other) = names.filter(is_other).min() else {
        return Ok(());
    };
    let (trained, strange) = match &bundle.spec.adapter {
        AdapterSpec::Full => ("a full model", "an adapter"),
        AdapterSpec::Lora(_) => ("an adapter", "a full model"),
    };
    bail!(
        "{}: the job trained {trained}, but the folder has {strange} as well ({other}), and which \
         of the two is computed depends on the program: move what is not the job's away",
        folder.display()
    )
}

/// Blob addresses of the trained tensors that are the result, by name.
fn last_values(bundle: &Bundle) -> anyhow::Result<BTreeMap<&str, Digest>> {
    let last = bundle.result_claims().context("the proof has no claims")?;
    let mut values = BTreeMap::new();
    for signed in &last.claims {
        let claim: Claim = signed.claim.open()?;
        for state in claim.state {
            let tensor = bundle.spec.trainable.get(state.tensor as usize);
            let tensor = tensor.context("a claim names a tensor that the job lacks")?;
            values.insert(tensor.name.as_str(), state.entry.value);
        }
    }
    match bundle
        .spec
        .trainable
        .iter()
        .find(|tensor| !values.contains_key(&*tensor.name))
    {
        Some(tensor) => bail!("no claim of the last step has the tensor `{}`", tensor.name),
        None => Ok(values),
    }
}

fn compare(
    proven: &BTreeMap<&str, Digest>,
    place: &str,
    load: impl Fn(&str) -> Result<Tensor, ModelError>,
) -> anyhow::Result<()> {
    for (name, expected) in proven {
        let found = tensor_blob::digest(&load(name)?)?;
        if found != *expected {
            bail!(
                "{place}: the tensor `{name}` is not the one that was trained: it hashes to \
                 {}, the proof ends with {}",
                found.short(),
                expected.short()
            );
        }
    }
    Ok(())
}

/// What PEFT is told of the shape of an adapter whose updates are on `modules`.
fn shape_options(updates: &LoraUpdates, modules: impl Iterator<Item = String>) -> ShapeOptions {
    let shape = |update: UpdateSize| UpdateShape {
        rank: update.rank,
        alpha: update.alpha.get(),
    };
    let common = UpdateSize {
        rank: updates.rank,
        alpha: updates.alpha,
    };
    let others = updates.others.iter();
    let others = others.map(|other| (other.module.clone(), other.update.map(shape)));
    let targets = updates.targets.clone();
    ShapeOptions::new(
        shape(common),
        targets,
        &others.collect(),
        modules,
        updates.saved.clone(),
    )
}

/// Checks ranks, scales and targets, on which the result of an adapter depends, too.
fn check_config(path: &Path, expected: &ShapeOptions, use_dora: bool) -> anyhow::Result<()> {
    let place = path.display();
    let config = Value::Object(peft::check_options(path)?);
    if config["peft_type"] != "LORA" {
        bail!(
            "{place}: `peft_type` is {}, but LORA was trained",
            config["peft_type"]
        );
    }
    let differ = |key: &str, trained: &dyn std::fmt::Display| {
        let found = &config[key];
        anyhow!("{place}: `{key}` is {found}, but {trained} was trained")
    };
    if config["r"].as_u64() != Some(u64::from(expected.r)) {
        return Err(differ("r", &expected.r));
    }
    let alpha = |value: &Value| value.as_f64().map(|alpha| alpha as f32);
    if alpha(&config["lora_alpha"]) != alpha(&expected.lora_alpha) {
        return Err(differ("lora_alpha", &expected.lora_alpha));
    }
    let names = config["target_modules"].as_array();
    let names = names.map(Vec::as_slice).unwrap_or_default();
    let names: BTreeSet<Option<&str>> = names.iter().map(Value::as_str).collect();
    let trained = expected.target_modules.iter();
    if names != trained.map(|name| Some(name.as_str())).collect() {
        return Err(differ(
            "target_modules",
            &expected.target_modules.join(", "),
        ));
    }
    if config["use_dora"].as_bool().unwrap_or(false) != use_dora {
        return Err(differ("use_dora", &use_dora));
    }
    // Each would make another model of the same tensors.
    for key in [
        "use_rslora",
        "fan_in_fan_out",
        "layers_to_transform",
        "layers_pattern",
        "exclude_modules",
    ] {
        if !matches!(config[key], Value::Null | Value::Bool(false)) {
            return Err(differ(key, &Value::Null));
        }
    }
    let ranks = json!(expected.rank_pattern);
    let alphas = json!(expected.alpha_pattern);
    let saved = json!(expected.modules_to_save.as_deref().unwrap_or_default());
    let patterns = [
        ("rank_pattern", ranks),
        ("alpha_pattern", alphas),
        ("modules_to_save", saved),
    ];
    for (key, trained) in patterns {
        let found = match &config[key] {
            Value::Null if trained.is_array() => json!([]),
            Value::Null => json!({}),
            found => found.clone(),
        };
        if found != trained {
            return Err(differ(key, &trained));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_with_an_option_that_nothing_computes_is_not_the_trained_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        let expected = ShapeOptions {
            r: 4,
            lora_alpha: json!(8),
            target_modules: vec!["q_proj".to_string()],
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: None,
        };
        let check = |option: &str, value: Value| {
            let mut config = json!({
                "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8,
                "target_modules": ["q_proj"], "bias": "none", "init_lora_weights": true,
            });
            config[option] = value;
            std::fs::write(&path, config.to_string()).unwrap();
            check_config(&path, &expected, false)
        };
        check("lora_dropout", json!(0.1)).unwrap();
        for (option, value) in [
            ("alora_invocation_tokens", json!([1])),
            ("layer_replication", json!([[0, 2]])),
            ("layers_pattern", json!("layers")),
            ("lora_bias", json!(true)),
            ("bias", json!("all")),
            ("init_lora_weights", json!("pissa")),
            ("target_parameters", json!(["x"])),
            ("trainable_token_indices", json!([1])),
            ("use_qalora", json!(true)),
            ("arrow_config", json!({"a": 1})),
            ("peft_type", json!("LOHA")),
            ("peft_type", Value::Null),
            ("task_type", json!("SEQ_CLS")),
        ] {
            let refused = check(option, value).unwrap_err().to_string();
            assert!(refused.contains(option), "{option}: {refused}");
        }
    }
}
