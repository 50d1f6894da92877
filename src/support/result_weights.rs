//! Checks that the weights in a folder are those with which a proof ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use concord_kernels::Tensor;
use concord_kernels::packed::QuantFormat;
use concord_models::ModelError;
use concord_models::weights::{ModelFolder, TensorFile};
use concord_proto::{AdapterSpec, Claim, Digest};
use concord_runtime::tensor_blob;
use concord_verify::training::bundle::Bundle;
use serde_json::Value;

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
        AdapterSpec::Lora {
            rank,
            alpha,
            targets,
        } => {
            check_config(
                &folder.join("adapter_config.json"),
                *rank,
                alpha.get(),
                targets,
            )?;
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
        AdapterSpec::Lora { .. } => is_of_model(name),
    };
    let Some(other) = names.filter(is_other).min() else {
        return Ok(());
    };
    let (trained, strange) = match &bundle.spec.adapter {
        AdapterSpec::Full => ("a full model", "an adapter"),
        AdapterSpec::Lora { .. } => ("an adapter", "a full model"),
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
    for (signed, _) in &last.claims {
        let claim: Claim = signed.open()?;
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

/// Checks rank, scale and targets, on which the result of an adapter depends, too.
fn check_config(path: &Path, rank: u32, alpha: f32, targets: &[String]) -> anyhow::Result<()> {
    let place = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {place}"))?;
    let config: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{place}: not valid JSON"))?;
    let found = |key: &str| config[key].to_string();
    if config["r"].as_u64() != Some(u64::from(rank)) {
        bail!("{place}: `r` is {}, but {rank} was trained", found("r"));
    }
    if config["lora_alpha"].as_f64().map(|alpha| alpha as f32) != Some(alpha) {
        bail!(
            "{place}: `lora_alpha` is {}, but {alpha} was trained",
            found("lora_alpha")
        );
    }
    let names = config["target_modules"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let names: BTreeSet<Option<&str>> = names.iter().map(Value::as_str).collect();
    let trained: BTreeSet<Option<&str>> = targets.iter().map(|name| Some(name.as_str())).collect();
    if names != trained {
        bail!(
            "{place}: `target_modules` is {}, but {} were trained",
            found("target_modules"),
            targets.join(", ")
        );
    }
    Ok(())
}
