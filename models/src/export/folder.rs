//! Writes a fine-tuned model as a Hugging Face folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use concord_kernels::Tensor;
use safetensors::Dtype;
use serde_json::Value;

use super::{ExportDtype, replace_file, write_tensors};
use crate::companions::companions;
use crate::error::ModelError;
use crate::weights::ModelFolder;

/// Writes a folder that transformers loads: `model.safetensors`, `config.json`, and the
/// tokenizer's files and the chat templates of the base model, unchanged.
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
    fs::create_dir_all(folder).map_err(ModelError::io("make", folder))?;
    write_tensors(&path, tensors, |name| {
        dtype.unwrap_or(match base.dtype(name) {
            Some(Dtype::BF16) => ExportDtype::BF16,
            Some(Dtype::F16) => ExportDtype::F16,
            _ => ExportDtype::F32,
        })
    })?;
    for path in companions(base.dir())? {
        copy(&base.dir().join(&path), &folder.join(&path))?;
    }
    for (name, text) in base.made_companions()? {
        replace_file(&folder.join(name), |out| out.write_all(text.as_bytes()))?;
    }
    let to = folder.join("config.json");
    let text = match dtype {
        None => base.config_json().to_string(),
        Some(dtype) => with_dtype(base, dtype)?,
    };
    replace_file(&to, |out| out.write_all(text.as_bytes()))
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
    let name = match dtype {
        ExportDtype::F32 => "float32",
        ExportDtype::BF16 => "bfloat16",
        ExportDtype::F16 => "float16",
    };
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
