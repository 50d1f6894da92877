//! What `--model` names: a model, or an adapter with the model under it.

use std::path::PathBuf;

use anyhow::Context;

use crate::support::loaded_model::{base_of_adapter, resolve};

/// What is served under the name of the model.
#[derive(Debug)]
pub struct ModelSource {
    /// The folder of the model, or of the base model.
    pub model: PathBuf,
    /// The folder of the adapter that the name means.
    pub adapter: Option<PathBuf>,
}

impl ModelSource {
    /// Finds the folders, downloading them where need be.
    ///
    /// # Errors
    /// Where they are not found, or a folder is both a model and an adapter.
    pub fn find(model: &str) -> anyhow::Result<Self> {
        let named = resolve(model).context("--model")?;
        let base = base_of_adapter(&named).context("--model")?;
        let Some(base) = base else {
            return Ok(Self {
                model: named,
                adapter: None,
            });
        };
        let model = resolve(&base).with_context(|| {
            let named = named.display();
            format!("--model {named} is an adapter, and its base model is not to be had")
        })?;
        Ok(Self {
            model,
            adapter: Some(named),
        })
    }
}
