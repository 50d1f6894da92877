//! The parts of a model that a plan needs: its configuration, and the sizes of its files.

use anyhow::{Context, bail};
use concord_kernels::packed::QuantFormat;
use concord_models::config::DecoderConfig;
use concord_models::weights::ModelFolder;
use concord_models::{ModelError, memory};
use serde_json::json;

use super::PlanPart;
use crate::support::bytes::size;
use crate::support::loaded_model::{base_of_adapter, resolve_config};
use crate::support::output::counted;
use crate::support::profile::KeptFormats;

/// A model to plan for.
pub struct PlannedModel {
    name: String,
    pub config: DecoderConfig,
    /// The formats in which its matrices stay, where its files are here.
    pub kept: KeptFormats,
    /// Bytes of its weights files, where they are here.
    file_bytes: Option<u64>,
}

impl PlannedModel {
    /// Reads configuration and headers; of a model of the hub the configuration alone, unless all
    /// of it has been fetched before. `load_in` is what it is quantised to as it is read.
    ///
    /// # Errors
    /// Naming file, key or tensor that cannot be used.
    pub fn open(name: &str, load_in: Option<QuantFormat>) -> anyhow::Result<Self> {
        let dir = resolve_config(name)?;
        if let Some(base) = base_of_adapter(&dir)? {
            bail!(
                "{} is an adapter for {base}: plan that, and this folder as initial_adapter of a \
                 job with --job",
                dir.display()
            );
        }
        let (config, kept, file_bytes) = match ModelFolder::open(&dir) {
            Ok(folder) => {
                let bytes = |path: &std::path::Path| {
                    let found = path.metadata();
                    let found = found.with_context(|| format!("cannot read {}", path.display()));
                    anyhow::Ok(found?.len())
                };
                let bytes = folder.files().map(bytes).sum::<anyhow::Result<u64>>()?;
                let folder = match load_in {
                    Some(format) => folder.quantized_to(format)?,
                    None => folder,
                };
                let kept = KeptFormats::of(&folder)?;
                (folder.config().clone(), kept, Some(bytes))
            }
            Err(ModelError::NoWeights { .. }) => (
                DecoderConfig::from_folder(&dir)?,
                KeptFormats::default(),
                None,
            ),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            name: name.to_string(),
            config,
            kept,
            file_bytes,
        })
    }

    /// A model of which only the configuration is known.
    #[cfg(test)]
    pub fn of(name: &str, config: DecoderConfig) -> Self {
        Self {
            name: name.to_string(),
            config,
            kept: KeptFormats::default(),
            file_bytes: None,
        }
    }

    /// The part of the output that describes the model.
    pub fn part(&self) -> PlanPart {
        let config = &self.config;
        let parameters = memory::parameters(config);
        let files = match self.file_bytes {
            Some(bytes) => format!("weights files of {}", size(bytes)),
            None => "its weights files are not here".to_string(),
        };
        let text = format!(
            "{}: {}, hidden {}, {:.2}G parameters; {files}",
            self.name,
            counted(config.layers as u64, "layer"),
            config.hidden,
            parameters as f64 / 1e9,
        );
        let object = json!({
            "event": "model", "model": self.name, "layers": config.layers,
            "parameters": parameters, "file_bytes": self.file_bytes,
            "positions": config.max_positions,
        });
        (text, object)
    }
}
