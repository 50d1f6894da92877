//! Serves with other weights: one matrix of each layer is scaled.

use concord_kernels::Tensor;
use concord_models::ModelError;
use concord_models::decoder::TensorSource;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct OtherWeights;

impl FaultHooks for OtherWeights {
    fn before_loading_weights<'a>(
        &self,
        source: &'a dyn TensorSource,
    ) -> Option<Box<dyn TensorSource + 'a>> {
        Some(Box::new(Altered { source }))
    }
}

struct Altered<'a> {
    source: &'a dyn TensorSource,
}

impl TensorSource for Altered<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let mut tensor = self.source.tensor(name)?;
        if name.ends_with("mlp.up_proj.weight") {
            let values = tensor.values_mut()?;
            values.iter_mut().for_each(|value| *value *= 1.25);
        }
        Ok(tensor)
    }
}
