//! Where a stage gets its tensors from.

use concord_kernels::Tensor;

use crate::error::ModelError;
use crate::weights::ModelFolder;

/// Tensors by their Hugging Face names, as f32.
pub trait TensorSource {
    /// The tensor `name`.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, broken or not finite.
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError>;
}

impl TensorSource for ModelFolder {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        self.load(name)
    }
}
