//! Writes a model as a Hugging Face folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use concord_kernels::Tensor;
use safetensors::Dtype;
use serde_json::Value;

use super::shards::{self, Planned};
use super::source::{ExportSource, TunedTensors};
use super::{ExportDtype, replace_file};
use crate::companions::companions;
use crate::error::ModelError;
use crate::weights::ModelFolder;

/// Most bytes of tensors in a file, where nothing else is asked for: 5 GiB.
pub const SHARD_BYTES: u64 = 5 << 30;

/// Writes a folder that transformers loads: `model.safetensors`, or shards of [`SHARD_BYTES`] with
/// their index, `config.json`, and the tokenizer's files and the chat templates of the base model,
/// unchanged.
///
/// `tensors` are the model's, by their Hugging Face names. With `dtype`, all are written in it, and
/// the `dtype` in `config.json` is changed to match. Without it, each is written in the dtype that
/// it has in the base model, and `config.json` is [`ModelFolder::config_json`].
///
/// # Errors
/// [`ModelError::MissingTensor`] and [`ModelError::WrongShape`] where `tensors` are not those of
/// the base model; [`ModelError::Io`]. Older files are then as they were.
pub fn save_model(
    folder: &Path,
    base: &ModelFolder,
    tensors: &BTreeMap<String, Tensor>,
    dtype: Option<ExportDtype>,
) -> Result<(), ModelError> {
    let path = folder.join("model.safetensors");
    for spec in base.config().tensors() {
        let tensor = tensors
            .get(&spec.name)
            .ok_or_else(|| ModelError::MissingTensor {
                path: path.clone(),
                tensor: spec.name.clone(),
            })?;
        if tensor.shape() != spec.shape {
            return Err(ModelError::WrongShape {
                path,
                tensor: spec.name,
                found: tensor.shape().to_vec(),
                expected: spec.shape,
            });
        }
    }
    let source = TunedTensors { base, tensors };
    let form = FolderForm {
        dtype,
        shard_bytes: SHARD_BYTES,
    };
    save_source(folder, &source, form, &mut |_, _| ())
}

/// How a model is written as a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderForm {
    /// The dtype of all tensors; none keeps that of each in the base model.
    pub dtype: Option<ExportDtype>,
    /// Most bytes of tensors in a file, unless one tensor has more.
    pub shard_bytes: u64,
}

/// As [`save_model`], of numbers that are read, or computed, on the way: one piece of one tensor is
/// in memory at a time. Where the tensors do not fit in one file of `shard_bytes`, they are written
/// as shards with their index. `progress` is told the bytes of tensors that are written, and how
/// many there are.
///
/// # Errors
/// Those of the source; [`ModelError::BadTensor`] where a number is infinite in the dtype;
/// [`ModelError::Io`].
pub fn save_source(
    folder: &Path,
    source: &dyn ExportSource,
    form: FolderForm,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), ModelError> {
    let base = source.folder();
    fs::create_dir_all(folder).map_err(ModelError::io("make", folder))?;
    let own = |name: &str| match base.dtype(name) {
        Some(Dtype::BF16) => ExportDtype::BF16,
        Some(Dtype::F16) => ExportDtype::F16,
        _ => ExportDtype::F32,
    };
    let specs = base.config().tensors().into_iter();
    let tensors: Vec<Planned> = specs
        .map(|spec| (form.dtype.unwrap_or_else(|| own(&spec.name)), spec))
        .collect();
    let total = tensors.iter().map(shards::bytes).sum();
    let mut written = 0;
    shards::write(folder, source, tensors, form.shard_bytes, &mut |bytes| {
        written += bytes;
        progress(written, total);
    })?;
    save_companions(folder, base)?;
    let to = folder.join("config.json");
    let text = match form.dtype {
        None => base.config_json().to_string(),
        Some(dtype) => with_dtype(base, dtype)?,
    };
    replace_file(&to, |out| out.write_all(text.as_bytes()))
}

/// Writes the tokenizer's files, the chat templates and `generation_config.json` of a model into a
/// folder that is there, unchanged.
///
/// # Errors
/// [`ModelError::Io`], or where a GGUF file has no tokenizer that can be written.
pub fn save_companions(folder: &Path, base: &ModelFolder) -> Result<(), ModelError> {
    for path in companions(base.dir())? {
        copy(&base.dir().join(&path), &folder.join(&path))?;
    }
    for (name, text) in base.made_companions()? {
        replace_file(&folder.join(name), |out| out.write_all(text.as_bytes()))?;
    }
    Ok(())
}

/// The dtype in which a model's numbers are best written: nothing where each tensor keeps its own;
/// of packed weights the `dtype` (`torch_dtype`) of `config.json`, else bf16.
pub fn usual_dtype(base: &ModelFolder) -> Option<ExportDtype> {
    let specs = base.config().tensors();
    if !specs.iter().any(|spec| base.is_packed(&spec.name)) {
        return None;
    }
    let config: Value = serde_json::from_str(base.config_json()).unwrap_or_default();
    let named = |key: &str| config[key].as_str().map(str::to_string);
    let named = named("dtype").or_else(|| named("torch_dtype"));
    let known = [ExportDtype::F32, ExportDtype::BF16, ExportDtype::F16];
    let found = |name: String| known.into_iter().find(|dtype| dtype.torch_name() == name);
    Some(named.and_then(found).unwrap_or(ExportDtype::BF16))
}

fn copy(from: &Path, to: &Path) -> Result<(), ModelError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(ModelError::io("make", parent))?;
    }
    let mut file = fs::File::open(from).map_err(ModelError::io("read", from))?;
    replace_file(to, |mut out| io::copy(&mut file, &mut out).map(|_| ()))
}

/// The base model's configuration with `dtype`. transformers loads weights in the dtype that
/// `config.json` names (`torch_dtype` before its version 5), so both keys must be right.
fn with_dtype(base: &ModelFolder, dtype: ExportDtype) -> Result<String, ModelError> {
    let from = base.dir().join("config.json");
    let text = base.config_json();
    let mut config: BTreeMap<String, Value> =
        serde_json::from_str(text).map_err(ModelError::json(&from))?;
    let name = dtype.torch_name();
    let mut keys = vec!["torch_dtype", "dtype"];
    keys.retain(|key| config.contains_key(*key));
    if keys.is_empty() {
        keys.push("dtype");
    }
    let says = |key: &&str| config.get(*key).and_then(Value::as_str) == Some(name);
    if keys.iter().all(says) {
        return Ok(text.to_string());
    }
    for key in keys {
        config.insert(key.to_string(), Value::from(name));
    }
    config.values_mut().for_each(Value::sort_all_objects);
    let mut text = serde_json::to_string_pretty(&config).map_err(ModelError::json(&from))?;
    text.push('\n');
    Ok(text)
}
