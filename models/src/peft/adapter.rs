//! An adapter in memory, read from and written to a folder.

use std::collections::BTreeMap;
use std::path::Path;

use concord_kernels::Tensor;

use super::config::{self, MERGE};
use super::written;
use crate::config::{AdaptedMatrix, DecoderConfig, LoraSpec, Projection};
use crate::error::ModelError;
use crate::export::{ExportDtype, write_tensors};
use crate::weights::TensorFile;

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
/// What PEFT puts before the name of a module.
const SAVED_PREFIX: &str = "base_model.model.";
/// What it puts after the name of a module for the magnitudes of DoRA.
const MAGNITUDES: &str = ".lora_magnitude_vector";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter: each adapted weight W acts as `W + alpha / r * B A`, in DoRA with each row
/// brought to its magnitude.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Where it has updates, and of which shape.
    pub lora: LoraSpec,
    /// The factors, named by [`Adapter::keys`]: A `[r, in]` and B `[out, r]`; the magnitudes of
    /// DoRA, named by [`Adapter::magnitude_key`]: `[out]`; and tensors that are trained whole,
    /// named by [`Adapter::saved_key`].
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

    /// The key of the magnitudes `[out]` of a module's rows, where the adapter is one of DoRA.
    pub fn magnitude_key(module: &str) -> String {
        format!("{SAVED_PREFIX}{module}{MAGNITUDES}")
    }

    /// The module to whose magnitudes a key belongs, if it is one of magnitudes.
    pub fn magnitude_module(key: &str) -> Option<&str> {
        key.strip_prefix(SAVED_PREFIX)?.strip_suffix(MAGNITUDES)
    }

    /// The module to whose A a key belongs, if it is one of an A.
    pub fn module_of(key: &str) -> Option<&str> {
        let module = key.strip_prefix("base_model.model.")?;
        module.strip_suffix(".lora_A.weight")
    }

    /// The keys and shapes of the tensors of an adapter, sorted.
    pub fn shapes(config: &DecoderConfig, lora: &LoraSpec) -> BTreeMap<String, Vec<usize>> {
        let adapted = lora.adapted(config).into_iter();
        let of_matrix = |AdaptedMatrix { matrix, update, .. }: AdaptedMatrix| {
            let [out_dim, in_dim] = matrix.shape;
            let [a, b] = Self::keys(&matrix.module);
            let rank = update.rank as usize;
            let magnitudes = lora.use_dora.then(|| {
                let key = Self::magnitude_key(&matrix.module);
                (key, vec![out_dim])
            });
            let factors = [(a, vec![rank, in_dim]), (b, vec![out_dim, rank])];
            factors.into_iter().chain(magnitudes)
        };
        let saved = lora.saved_tensors(config).into_iter();
        let saved = saved.map(|spec| (Self::saved_key(&spec.name), spec.shape));
        adapted.flat_map(of_matrix).chain(saved).collect()
    }

    /// The key of a tensor of the model that is trained whole.
    pub fn saved_key(name: &str) -> String {
        format!("{SAVED_PREFIX}{name}")
    }

    /// The name in the model of the tensor that a key of [`Self::saved_key`] is of.
    pub fn saved_name(key: &str) -> Option<&str> {
        let is_factor = key.contains(".lora_");
        key.strip_prefix(SAVED_PREFIX).filter(|_| !is_factor)
    }

    /// Reads a PEFT folder, and checks it against its base model.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedAdapter`] naming an option that Concord does not compute;
    /// [`ModelError`] naming the file and the tensor that is missing, unknown or of another shape.
    pub fn open(folder: &Path, model: &DecoderConfig) -> Result<Self, ModelError> {
        let lora = config::read(&folder.join(CONFIG_FILE), model)?;
        let (weights, pickle) = (folder.join(WEIGHTS_FILE), folder.join("adapter_model.bin"));
        let file = match pickle.is_file() && !weights.is_file() {
            true => TensorFile::open_pickle(&pickle)?,
            false => TensorFile::open(&weights)?,
        };
        let shapes = Self::shapes(model, &lora);
        if let Some(strange) = file.names().find(|name| !shapes.contains_key(*name)) {
            return Err(ModelError::OtherAdapter {
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
        Ok(Self { lora, tensors })
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
        self.save_with_dropout(folder, (model, base_model), 0.0)
    }

    /// As [`Self::save`], of an adapter that was trained with this dropout.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_with_dropout(
        &self,
        folder: &Path,
        (model, base_model): (&DecoderConfig, &str),
        dropout: f32,
    ) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(ModelError::io("make", folder))?;
        let dtype = |_: &str| ExportDtype::F32;
        write_tensors(&folder.join(WEIGHTS_FILE), &self.tensors, dtype)?;
        written::write(
            &folder.join(CONFIG_FILE),
            &self.lora,
            (model, base_model),
            dropout,
        )
    }
}

/// Refuses an adapter that leaves out the experts of a model, as PEFT on transformers 5 makes it.
fn check_experts(
    file: &TensorFile,
    shapes: &BTreeMap<String, Vec<usize>>,
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
