//! A tensor that is decoded on demand, some rows at a time.

use std::path::Path;

use concord_kernels::{KernelError, Tensor};

use super::rows::{RowReader, TakeRows, check_rows, runs_of_rows};
use crate::error::ModelError;

/// The numbers of one tensor.
pub(super) struct DecodedTensor<'a> {
    /// The file, for messages.
    pub(super) path: &'a Path,
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) rows: Box<dyn RowReader + 'a>,
}

impl DecodedTensor<'_> {
    /// All of it.
    pub(super) fn load(&self) -> Result<Tensor, ModelError> {
        let count = self.shape.iter().product();
        let cols = self.cols();
        let mut data = vec![0.0; count];
        self.rows
            .read(0..count.checked_div(cols).unwrap_or(0), &mut data);
        let tensor = Tensor::new(&self.shape, data).map_err(|error| self.bad(error))?;
        tensor
            .check_finite(self.name)
            .map_err(|error| self.bad(error))?;
        Ok(tensor)
    }

    /// Some rows at a time: the last axis is that of a row, and all others together count rows.
    /// What has one axis or none is given as a whole.
    pub(super) fn load_rows(&self, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        if self.shape.len() < 2 {
            let tensor = self.load()?;
            return take(tensor.rows_cols().0, tensor);
        }
        let cols = self.cols();
        let rows = self.shape[..self.shape.len() - 1].iter().product();
        for run in runs_of_rows(rows, cols) {
            let mut data = vec![0.0; run.len() * cols];
            self.rows.read(run.clone(), &mut data);
            let some = Tensor::new(&[run.len(), cols], data).map_err(|error| self.bad(error))?;
            check_rows(self.name, run.start * cols, &some).map_err(|error| self.bad(error))?;
            take(rows, some)?;
        }
        Ok(())
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn bad(&self, source: KernelError) -> ModelError {
        ModelError::BadTensor {
            path: self.path.to_path_buf(),
            source,
        }
    }
}
