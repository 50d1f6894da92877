//! Embedding: rows of a table, and their gradient by (token id, position) order.

use super::elementwise::add;
use super::matmul::tensor;
use crate::{Device, Ids, KernelError, Tensor, cuda};

impl Device {
    /// Row `ids[t]` of `table` `[vocab, hidden]` for each token t: `[tokens, hidden]`. Ids are
    /// checked where they enter: they lie in the table.
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
        let row = |&id: &u32| &table[id as usize * hidden..(id as usize + 1) * hidden];
        let rows: Vec<f32> = ids.iter().flat_map(row).copied().collect();
        tensor(&shape, rows)
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
        let mut gradient = vec![0.0; vocab * hidden];
        for (row, &id) in dy.chunks_exact(hidden).zip(ids.iter()) {
            let at = id as usize * hidden;
            add(&mut gradient[at..at + hidden], row);
        }
        tensor(&shape, gradient)
    }
}
