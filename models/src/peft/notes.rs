//! What a user should know of an adapter that is neither an error nor a number.

use std::fs;
use std::path::Path;

use super::Adapter;
use super::adapter::CONFIG_FILE;
use crate::config::{DecoderConfig, ExpertLayout, Projection};
use crate::error::ModelError;
use crate::json;

impl Adapter {
    /// A sentence where the adapter in `folder` was made for a model of another name than `model`
    /// has, which is a folder or a GGUF file. A name proves nothing, so that this is no error.
    ///
    /// # Errors
    /// [`ModelError`] where `adapter_config.json` cannot be read.
    pub fn base_note(folder: &Path, model: &Path) -> Result<Option<String>, ModelError> {
        let path = folder.join(CONFIG_FILE);
        let bytes = fs::read(&path).map_err(ModelError::io("read", &path))?;
        let object = json::object(&path, &bytes)?;
        let base = object.get("base_model_name_or_path");
        let Some(base) = base.and_then(|base| base.as_str()) else {
            return Ok(None);
        };
        let last = base
            .trim_end_matches(['/', '\\'])
            .rsplit(['/', '\\'])
            .next();
        let Some(last) = last.filter(|last| !last.is_empty()) else {
            return Ok(None);
        };
        let last = last.to_lowercase();
        // A folder of the hub's cache is called models--OWNER--NAME, a file NAME-Q4_K_M.gguf.
        let whole = fs::canonicalize(model).unwrap_or_else(|_| model.to_path_buf());
        let has_it = [model, &whole].iter().any(|path| {
            path.components().any(|part| {
                let part = part.as_os_str().to_string_lossy().to_lowercase();
                part.contains(&last)
            })
        });
        Ok((!has_it).then(|| {
            format!(
                "the adapter {} was made for the model `{}` (base_model_name_or_path), and is used \
                 with {}: on other weights than its own it is of no use",
                folder.display(),
                json::shown(base),
                model.display()
            )
        }))
    }

    /// A sentence where PEFT would pass over a part of an adapter on `targets` of a model.
    pub fn peft_note(config: &DecoderConfig, targets: &[Projection]) -> Option<String> {
        let experts = config.experts.as_ref()?;
        let is_own = matches!(experts.names.layout, ExpertLayout::Own { .. });
        let is_adapted = targets.iter().any(|target| target.is_of_feed_forward());
        (is_own && is_adapted).then(|| {
            "the adapter has matrices for each expert; PEFT on transformers 5 holds the experts of \
             a layer as one tensor, and passes over these without a word: serve the adapter with \
             Concord, or leave the projections of experts out of lora_target_modules"
                .to_string()
        })
    }
}
