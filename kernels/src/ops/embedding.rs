//! Embedding: rows of a table, and their gradient by (token id, position) order.

use super::matmul::tensor;
use crate::{Device, Tensor};

impl Device {
    /// Row `ids[t]` of `table` `[vocab, hidden]` for each token t: `[tokens, hidden]`.
    ///
    /// # Panics
    /// For an id outside of the table: ids are checked where they enter.
    pub fn embedding(&self, table: &Tensor, ids: &[u32]) -> Tensor {
        let (_, hidden) = table.rows_cols();
        let row = |&id: &u32| &table.data()[id as usize * hidden..(id as usize + 1) * hidden];
        tensor(
            &[ids.len(), hidden],
            ids.iter().flat_map(row).copied().collect(),
        )
    }

    /// Gradient of the table: each row adds the gradients of its tokens by rising position.
    pub fn embedding_gradient(&self, dy: &Tensor, ids: &[u32], vocab: usize) -> Tensor {
        let (_, hidden) = dy.rows_cols();
        let mut gradient = Tensor::zeros(&[vocab, hidden]);
        for (row, &id) in dy.data().chunks_exact(hidden).zip(ids) {
            let at = id as usize * hidden;
            self.add_assign(&mut gradient.data_mut()[at..at + hidden], row);
        }
        gradient
    }
}
