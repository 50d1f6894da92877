//! Matrices as the blocks in which they are stored in a mapped file, for callers that keep them
//! packed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use safetensors::Dtype;

use super::ModelFolder;
use crate::error::ModelError;

/// A matrix as rows of blocks: a part of a file's shared map, or a copy where the file has the rows
/// in another order.
#[derive(Clone)]
pub struct BlockMatrix {
    /// How the numbers are packed; F32, F16 and BF16 are blocks of one number.
    pub format: BlockFormat,
    /// Rows of the matrix.
    pub rows: usize,
    /// Numbers in a row, which fill whole blocks.
    pub cols: usize,
    /// What holds the bytes.
    pub owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Where in `owner` the rows are, one after another.
    pub range: Range<usize>,
}

impl BlockMatrix {
    /// The bytes of all rows.
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = (*self.owner).as_ref();
        all.get(self.range.clone()).unwrap_or(&[])
    }
}

impl fmt::Debug for BlockMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} of {}", self.rows, self.cols, self.format.name())
    }
}

impl ModelFolder {
    /// A matrix as blocks. Their numbers are not checked: they may be NaN or infinite. `None` where
    /// it is no matrix, or is stored as several tensors.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, or of an unsupported format.
    pub fn blocks(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        if let Some(rows) = self.gguf_rows(name)? {
            let &[count, cols] = rows.shape().as_slice() else {
                return Ok(None);
            };
            let (owner, range) = rows.shared();
            return Ok(Some(BlockMatrix {
                format: rows.format,
                rows: count,
                cols,
                owner,
                range,
            }));
        }
        if self.is_packed(name) {
            return Ok(None);
        }
        let (file, stored) = self.stored(name)?;
        let format = match file.dtype(stored) {
            Some(Dtype::F32) => BlockFormat::F32,
            Some(Dtype::F16) => BlockFormat::F16,
            Some(Dtype::BF16) => BlockFormat::Bf16,
            _ => return Ok(None),
        };
        let Some(&[rows, cols]) = file.shape(stored) else {
            return Ok(None);
        };
        Ok(Some(BlockMatrix {
            format,
            rows,
            cols,
            owner: file.map(),
            range: file.place(stored)?,
        }))
    }
}
