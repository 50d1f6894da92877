//! Columns of a matrix in which several matrices stand side by side.

use super::matmul::tensor;
use crate::reference::columns::{Columns, put, take};
use crate::{Device, KernelError, Tensor, cuda};

impl Device {
    /// The columns of x `[m, groups * group_width]`, side by side: `[m, groups * width]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn take_columns(&self, x: &Tensor, columns: &Columns) -> Result<Tensor, KernelError> {
        let rows = check(x, columns);
        let shape = [rows, columns.chosen()];
        if let Self::Cuda(gpu) = self {
            let part = cuda::columns::take(gpu, &x.on(gpu)?, rows, columns)?;
            return tensor(&shape, part);
        }
        tensor(&shape, take(&x.values()?, columns))
    }

    /// Overwrites the columns of x `[m, groups * group_width]` by part `[m, groups * width]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn put_columns(
        &self,
        x: &mut Tensor,
        columns: &Columns,
        part: &Tensor,
    ) -> Result<(), KernelError> {
        let rows = check(x, columns);
        assert_eq!(part.len(), rows * columns.chosen(), "put_columns: elements");
        if let Self::Cuda(gpu) = self {
            let part = part.on(gpu)?;
            return cuda::columns::put(gpu, x.unique_on(gpu)?, rows, columns, &part);
        }
        put(x.values_mut()?, columns, &part.values()?);
        Ok(())
    }
}

/// Rows of x, which must have the columns.
fn check(x: &Tensor, columns: &Columns) -> usize {
    let (rows, cols) = x.rows_cols();
    let end = columns.offset + columns.width;
    assert!(
        cols == columns.whole() && end <= columns.group_width && columns.width > 0,
        "columns: {columns:?} of {cols}"
    );
    rows
}
