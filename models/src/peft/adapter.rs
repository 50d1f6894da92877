//! An adapter in memory, read from and written to a folder.

use std::collections::BTreeMap;
use std::path::Path;

use concord_kernels::Tensor;

use super::config::{self, LoraConfig, MERGE};
use crate::config::{DecoderConfig, Projection};
use crate::error::ModelError;
use crate::export::{ExportDtype, write_tensors};
use crate::weights::TensorFile;

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter: each target's weight W acts as `W + alpha / r * B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Rank.
    pub r: u32,
    /// Scale: the product B A is multiplied by `alpha / r`.
    pub alpha: f32,
    /// The adapted projections, the same in every layer; sorted, without duplicates.
    pub targets: Vec<Projection>,
    /// The factors, named by [`Adapter::key_a`] and [`Adapter::key_b`]: A `[r, in]` and B `[out,
    /// r]`.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Adapter {
    /// The key of A `[r, in]` of a projection:
    /// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
    pub fn key_a(config: &DecoderConfig, layer: u32, projection: Projection) -> String {
        key(config, layer, projection, 'A')
    }

    /// The key of B `[out, r]` of a projection.
    pub fn key_b(config: &DecoderConfig, layer: u32, projection: Projection) -> String {
        key(config, layer, projection, 'B')
    }

    /// The keys of A and B of a module such as `model.layers.0.mlp.experts.3.up_proj`.
    pub fn keys(module: &str) -> [String; 2] {
        ['A', 'B'].map(|side| format!("base_model.model.{module}.lora_{side}.weight"))
    }

    /// The keys and shapes of an adapter with rank `r` on `targets` of a model, sorted. Targets
    /// that the model does not have are ignored.
    pub fn shapes(
        config: &DecoderConfig,
        r: u32,
        targets: &[Projection],
    ) -> BTreeMap<String, [usize; 2]> {
        let layers = 0..config.layers;
        let of_layer = |layer| {
            let own = config.layer_matrices(layer).into_iter();
            let adapted = own.filter(|matrix| targets.contains(&matrix.projection));
            adapted.flat_map(move |matrix| {
                let [out_dim, in_dim] = matrix.shape;
                let [a, b] = Self::keys(&matrix.module);
                let rank = r as usize;
                [(a, [rank, in_dim]), (b, [out_dim, rank])]
            })
        };
        layers.flat_map(of_layer).collect()
    }

    /// Reads a PEFT folder, and checks it against its base model.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedAdapter`] naming an option that Concord does not compute;
    /// [`ModelError`] naming the file and the tensor that is missing, unknown or of another shape.
    pub fn open(folder: &Path, model: &DecoderConfig) -> Result<Self, ModelError> {
        let config = config::read(&folder.join(CONFIG_FILE), model)?;
        let (weights, pickle) = (folder.join(WEIGHTS_FILE), folder.join("adapter_model.bin"));
        let file = match pickle.is_file() && !weights.is_file() {
            true => TensorFile::open_pickle(&pickle)?,
            false => TensorFile::open(&weights)?,
        };
        let shapes = Self::shapes(model, config.r, &config.targets);
        if let Some(strange) = file.names().find(|name| !shapes.contains_key(*name)) {
            return Err(ModelError::BadWeightsFile {
                path: file.path().to_path_buf(),
                reason: format!(
                    "the tensor `{strange}` belongs to no target of {CONFIG_FILE} in this model: \
                     take the adapter's own base model, and both of its files as they were saved"
                ),
            });
        }
        check_experts(&file, &shapes, model)?;
        let mut tensors = BTreeMap::new();
        for (name, shape) in shapes {
            file.check(&name, &shape)?;
            let tensor = file.load(&name)?;
            tensors.insert(name, tensor);
        }
        Ok(Self {
            r: config.r,
            alpha: config.alpha,
            targets: config.targets,
            tensors,
        })
    }

    /// Writes a PEFT folder, which is created if needed. Each file replaces an older one whole. The
    /// weights are written first, so that a folder with the new configuration has them.
    ///
    /// `model` is the base model, and `base_model` the name or path by which PEFT will load it.
    ///
    /// # Errors
    /// [`ModelError::Io`]; the older files are then still there.
    pub fn save(
        &self,
        folder: &Path,
        model: &DecoderConfig,
        base_model: &str,
    ) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(ModelError::io("make", folder))?;
        let dtype = |_: &str| ExportDtype::F32;
        write_tensors(&folder.join(WEIGHTS_FILE), &self.tensors, dtype)?;
        let config = LoraConfig {
            r: self.r,
            alpha: self.alpha,
            targets: self.targets.clone(),
        };
        config::write(&folder.join(CONFIG_FILE), &config, (model, base_model))
    }
}

/// Refuses an adapter that leaves out the experts of a model, as PEFT on transformers 5 makes it.
fn check_experts(
    file: &TensorFile,
    shapes: &BTreeMap<String, [usize; 2]>,
    model: &DecoderConfig,
) -> Result<(), ModelError> {
    let Some(experts) = &model.experts else {
        return Ok(());
    };
    let of_expert = format!(".{}.", experts.names.experts);
    let missing = shapes
        .keys()
        .find(|name| name.contains(&of_expert) && file.shape(name).is_none());
    missing.map_or(Ok(()), |name| {
        Err(ModelError::BadWeightsFile {
            path: file.path().to_path_buf(),
            reason: format!(
                "it has no tensor `{name}`: PEFT on transformers 5 holds the experts of a layer as \
                 one tensor, on which such an adapter has nothing. Here a projection is adapted in \
                 every expert, the shared one too, or in none: {MERGE}"
            ),
        })
    })
}

fn key(config: &DecoderConfig, layer: u32, projection: Projection, side: char) -> String {
    let module = config.module_path(layer as usize, projection);
    format!("base_model.model.{module}.lora_{side}.weight")
}
