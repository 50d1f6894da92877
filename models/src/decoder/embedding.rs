//! The embedding table: f32 numbers, or packed blocks from which the rows of tokens are decoded.

use concord_kernels::packed::PackedRows;
use concord_kernels::{Device, Ids, KernelError, Tensor};

/// The embedding of each token, `[vocab, hidden]`.
#[derive(Clone, Debug)]
pub(super) enum Embedding {
    /// As f32, where it is trained or is on a GPU.
    Table(Tensor),
    /// Packed as in its file.
    Packed(PackedRows),
}

impl Embedding {
    /// Tokens of the vocabulary.
    pub(super) fn vocab(&self) -> usize {
        match self {
            Self::Table(table) => table.rows_cols().0,
            Self::Packed(packed) => packed.rows(),
        }
    }

    /// The embeddings of tokens, `[tokens, hidden]`.
    pub(super) fn of(&self, device: &Device, ids: &Ids) -> Result<Tensor, KernelError> {
        match self {
            Self::Table(table) => device.embedding(table, ids),
            Self::Packed(packed) => device.packed_embedding(packed, ids),
        }
    }
}
