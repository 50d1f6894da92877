//! A low-rank update of a stage that is kept beside its weights, so that sequences with and without
//! it can share a pass.

use std::collections::BTreeMap;

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::{KernelError, Tensor};

use crate::config::{LayerMatrix, LoraSpec, UpdateShape};
use crate::decoder::linear::{Linear, Lora};
use crate::decoder::stage::Stage;
use crate::error::ModelError;
use crate::peft::Adapter;

/// The part of a LoRA adapter that belongs to a stage's layers, as codes on the stage's device.
#[derive(Debug)]
pub struct StageAdapter {
    /// The factors, by the name of the weight that they update.
    updates: BTreeMap<String, Lora>,
}

impl StageAdapter {
    /// Codes the factors of `stage`'s layers from `tensors`, which are named by
    /// [`Adapter::keys`]. Factors of other layers are ignored, missing ones are zeros.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] for a factor of another shape or one that is not finite, for DoRA, or
    /// where a GPU fails.
    pub fn load(
        stage: &Stage,
        spec: &LoraSpec,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Self, ModelError> {
        if spec.use_dora {
            let reason = "a DoRA adapter beside others: the norms of its rows need the weights as \
                          they are stored; merge it into the model (`concord merge`)";
            return Err(KernelError::DoesNotFit(reason.to_string()).into());
        }
        let _weights = stage.options.device.account(MemoryPurpose::Weights);
        let loader = Loader { stage, tensors };
        let config = &stage.options.config;
        let mut updates = BTreeMap::new();
        let span = stage.options.layers;
        for layer in span.layers() {
            for matrix in config.layer_matrices(layer as usize) {
                if !span.holds(layer, &matrix.module) {
                    continue;
                }
                if let Some(shape) = spec.of(&matrix) {
                    let update = loader.update(&matrix, shape)?;
                    updates.insert(format!("{}.weight", matrix.module), update);
                }
            }
        }
        Ok(Self { updates })
    }

    /// The update of a matrix of the stage.
    pub(super) fn update(&self, linear: &Linear) -> Option<&Lora> {
        self.updates.get(&linear.name)
    }
}

struct Loader<'a> {
    stage: &'a Stage,
    tensors: &'a BTreeMap<String, Tensor>,
}

impl Loader<'_> {
    fn update(&self, matrix: &LayerMatrix, shape: UpdateShape) -> Result<Lora, ModelError> {
        let options = &self.stage.options;
        let [out, input] = matrix.shape;
        let rank = shape.rank as usize;
        let [name_a, name_b] = Adapter::keys(&matrix.module);
        let factor = |name: &str, shape: [usize; 2]| {
            let zeros;
            let value = match self.tensors.get(name) {
                Some(value) => value,
                None => {
                    zeros = Tensor::zeros(&shape);
                    &zeros
                }
            };
            if value.shape() != shape {
                let found = value.shape();
                let reason = format!("{name} has shape {found:?} where {shape:?} is due");
                return Err(KernelError::DoesNotFit(reason));
            }
            value.check_finite(name)?;
            let precision = options.precisions.activations;
            options.device.code(value, shape[1], precision)
        };
        Ok(Lora {
            a: factor(&name_a, [rank, input])?,
            b: factor(&name_b, [out, rank])?,
            scale: shape.scale(),
            name_a,
            name_b,
            magnitudes: None,
        })
    }
}
