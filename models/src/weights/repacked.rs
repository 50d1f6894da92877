//! Matrices of GPTQ, AWQ, compressed-tensors, FP8 and bitsandbytes that stay packed: their parts,
//! which lie in other orders and in several tensors, become blocks of rows as they are read. The
//! numbers of the blocks are those of the parts, to the bit.

use std::sync::Arc;

use concord_kernels::packed::BlockFormat;

use super::folder::TakeBytes;
use super::packed::BlockReader;
use super::{BlockMatrix, ModelFolder, runs_of_rows};
use crate::error::ModelError;

/// A packed matrix whose rows are read as blocks.
pub(super) struct Repacked<'a> {
    format: BlockFormat,
    rows: usize,
    cols: usize,
    /// Bytes of a row.
    width: usize,
    reader: Box<dyn BlockReader + 'a>,
}

impl ModelFolder {
    /// The packed matrix `name` as blocks. Nothing where it is none, or where its numbers have to
    /// be decoded, as no format of blocks fits how they are grouped.
    ///
    /// # Errors
    /// [`ModelError`] naming the part that is missing or broken.
    pub(super) fn repacked(&self, name: &str) -> Result<Option<Repacked<'_>>, ModelError> {
        let Some(matrix) = self.own_packed(self.settled(name))? else {
            return Ok(None);
        };
        let &[rows, cols] = matrix.shape.as_slice() else {
            return Ok(None);
        };
        let format = matrix.format();
        let width = format.and_then(|format| format.row_bytes(cols));
        let (Some(format), Some(width)) = (format, width) else {
            return Ok(None);
        };
        let reader = matrix.block_reader()?;
        Ok(reader.map(|reader| Repacked {
            format,
            rows,
            cols,
            width,
            reader,
        }))
    }

    /// The packed matrix `name` as blocks, which are made anew: the caller's are the only copy, and
    /// the parts are not needed any more.
    pub(super) fn repacked_matrix(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        let Some(matrix) = self.repacked(name)? else {
            return Ok(None);
        };
        let all = matrix.whole();
        self.forget(name);
        let range = 0..all.len();
        Ok(Some(BlockMatrix {
            format: matrix.format,
            rows: matrix.rows,
            cols: matrix.cols,
            owner: Arc::new(all),
            range,
        }))
    }
}

impl Repacked<'_> {
    /// All rows.
    fn whole(&self) -> Vec<u8> {
        let mut all = vec![0; self.rows * self.width];
        for run in runs_of_rows(self.rows, self.cols) {
            let bytes = &mut all[run.start * self.width..run.end * self.width];
            self.reader.read_blocks(self.format, run, bytes);
        }
        all
    }

    /// Gives the rows to `take`, some at a time.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn each(&self, take: &mut TakeBytes<'_>) -> Result<(), ModelError> {
        let mut bytes = Vec::new();
        for run in runs_of_rows(self.rows, self.cols) {
            bytes.resize(run.len() * self.width, 0);
            self.reader.read_blocks(self.format, run, &mut bytes);
            take(&bytes)?;
        }
        Ok(())
    }
}
