//! Where the numbers of a model that is written come from.

use std::collections::BTreeMap;

use concord_kernels::Tensor;

use crate::error::ModelError;
use crate::weights::{ModelFolder, TakeRows};

/// The numbers of a model, and the files that say all else about it.
pub trait ExportSource {
    /// The model whose configuration, tokenizer and dtypes are written.
    fn folder(&self) -> &ModelFolder;

    /// Gives the rows of the tensor `name` to `take`, as f32, in order and some at a time; what has
    /// one axis is one row.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, broken or not finite, and the errors of `take`.
    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError>;
}

impl ExportSource for ModelFolder {
    fn folder(&self) -> &ModelFolder {
        self
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        self.load_rows(name, take)
    }
}

/// Tensors in memory, in place of those of a base model.
pub(super) struct TunedTensors<'a> {
    pub(super) base: &'a ModelFolder,
    pub(super) tensors: &'a BTreeMap<String, Tensor>,
}

impl ExportSource for TunedTensors<'_> {
    fn folder(&self) -> &ModelFolder {
        self.base
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| ModelError::MissingTensor {
            path: self.base.dir().to_path_buf(),
            tensor: name.to_string(),
        })?;
        take(tensor.rows_cols().0, tensor.on_host()?.into_owned())
    }
}
