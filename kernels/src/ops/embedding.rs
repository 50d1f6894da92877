//! Embedding: rows of a table, and their gradient by (token id, position) order.

use super::matmul::tensor;
use crate::packed::PackedRows;
use crate::{Device, Ids, KernelError, Tensor, cuda, reference};

impl Device {
    /// Row `ids[t]` of `table` `[vocab, hidden]` for each token t: `[tokens, hidden]`. Callers have
    /// checked that all ids are in the table.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn embedding(&self, table: &Tensor, ids: &Ids) -> Result<Tensor, KernelError> {
        let (_, hidden) = table.rows_cols();
        let shape = [ids.len(), hidden];
        if let Self::Cuda(gpu) = self {
            let (table, ids) = (table.on(gpu)?, ids.on(gpu)?);
            return tensor(&shape, cuda::embedding::forward(gpu, &table, hidden, &ids)?);
        }
        let (table, ids) = (table.values()?, ids.0.values()?);
        tensor(&shape, reference::embedding::forward(&table, hidden, &ids))
    }

    /// As [`Self::embedding`], for a table that stays packed: only the rows that are asked for are
    /// decoded.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn packed_embedding(&self, table: &PackedRows, ids: &Ids) -> Result<Tensor, KernelError> {
        let ids = ids.0.values()?;
        let rows = ids.iter().flat_map(|&id| table.decode_row(id as usize));
        let values = tensor(&[ids.len(), table.cols()], rows.collect::<Vec<f32>>())?;
        self.place(values)
    }

    /// Gradient of the table: each row adds the gradients of its tokens by rising position.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn embedding_gradient(
        &self,
        dy: &Tensor,
        ids: &Ids,
        vocab: usize,
    ) -> Result<Tensor, KernelError> {
        let (_, hidden) = dy.rows_cols();
        let shape = [vocab, hidden];
        if let Self::Cuda(gpu) = self {
            let (dy, ids) = (dy.on(gpu)?, ids.on(gpu)?);
            let gradient = cuda::embedding::backward(gpu, &dy, hidden, &ids, vocab)?;
            return tensor(&shape, gradient);
        }
        let (dy, ids) = (dy.values()?, ids.0.values()?);
        let gradient = reference::embedding::backward(&dy, hidden, &ids, vocab);
        tensor(&shape, gradient)
    }
}
