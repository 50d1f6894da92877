//! Where a stage gets its tensors from.

use concord_kernels::Tensor;
use concord_kernels::packed::BlockFormat;

use crate::error::ModelError;
use crate::weights::{BlockMatrix, ModelFolder, TakeRows};

/// Tensors by their Hugging Face names, as f32.
pub trait TensorSource {
    /// The tensor `name`.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, broken or not finite.
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError>;

    /// Gives the rows of the matrix `name` to `take`, in order and some at a time, so that a matrix
    /// that becomes codes is never in memory as f32 as a whole. A source that cannot be read in
    /// slices gives all rows at once. After an error, the rows that were taken must not be used.
    ///
    /// # Errors
    /// As [`Self::tensor`], and the errors of `take`.
    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let tensor = self.tensor(name)?;
        take(tensor.rows_cols().0, tensor)
    }

    /// The matrix `name` as blocks that stay packed in memory, where the source has blocks. They
    /// hold the numbers of [`Self::tensor`], but are not yet checked to be finite.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing or broken.
    fn blocks(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        let _ = name;
        Ok(None)
    }

    /// The format of the matrix `name` in [`Self::blocks`], by which its memory is counted; F32
    /// where there are none.
    fn format(&self, name: &str) -> BlockFormat {
        let _ = name;
        BlockFormat::F32
    }
}

impl TensorSource for ModelFolder {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        self.load(name)
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        self.load_rows(name, take)
    }

    fn blocks(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        ModelFolder::blocks(self, name)
    }

    fn format(&self, name: &str) -> BlockFormat {
        let form = self.stored_form(name);
        form.map_or(BlockFormat::F32, |form| form.format)
    }
}
