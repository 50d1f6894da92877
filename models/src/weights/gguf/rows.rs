//! The rows of a tensor of a GGUF file.

use std::ops::Range;
use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use memmap2::Mmap;
use safetensors::Dtype;

use crate::error::ModelError;
use crate::weights::rows::RowReader;

/// What holds some bytes, and where they are in it.
type SharedRange = (Arc<dyn AsRef<[u8]> + Send + Sync>, Range<usize>);

/// The rows of a tensor of a GGUF file, in the order of transformers.
#[derive(Clone, Copy, Debug)]
pub(in crate::weights) struct GgufRows<'a> {
    pub(in crate::weights) format: BlockFormat,
    /// Of a vector its length, and one row.
    pub(super) cols: usize,
    pub(super) rows: usize,
    pub(in crate::weights) is_vector: bool,
    /// Rows of a head, where those of each head are interleaved.
    pub(super) head_rows: Option<usize>,
    /// Whether 1 is taken off each number.
    pub(super) has_one_added: bool,
    pub(in crate::weights) bytes: &'a [u8],
    pub(in crate::weights) map: &'a Arc<Mmap>,
    /// Where the bytes lie in the file.
    pub(in crate::weights) place: (usize, usize),
}

impl<'a> GgufRows<'a> {
    /// The shape of the tensor.
    pub(in crate::weights) fn shape(&self) -> Vec<usize> {
        match self.is_vector {
            true => vec![self.cols],
            false => vec![self.rows, self.cols],
        }
    }

    /// The bytes of its numbers, in the order of transformers.
    pub(in crate::weights) fn each_stored(
        &self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let width = self.format.bytes();
        match self.is_vector {
            true => (0..self.cols)
                .try_for_each(|i| take(&self.bytes[self.stored(i) * width..][..width])),
            false => (0..self.rows).try_for_each(|row| take(self.row(row))),
        }
    }

    /// The bytes of all rows in the order of transformers: in the map, or a copy of them.
    pub(in crate::weights) fn shared(&self) -> SharedRange {
        if self.is_in_order() {
            return (self.map.clone(), self.place.0..self.place.1);
        }
        let rows = (0..self.rows).flat_map(|row| self.row(row));
        let moved: Vec<u8> = rows.copied().collect();
        let all = 0..moved.len();
        (Arc::new(moved), all)
    }

    /// Whether the rows lie in the order of transformers.
    pub(in crate::weights) fn is_in_order(&self) -> bool {
        self.head_rows.is_none()
    }

    /// The format of its numbers, where they lie as they are.
    pub(in crate::weights) fn dtype(&self) -> Option<Dtype> {
        match self.format {
            _ if self.has_one_added => None,
            BlockFormat::F32 => Some(Dtype::F32),
            BlockFormat::F16 => Some(Dtype::F16),
            BlockFormat::Bf16 => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// Whether its blocks are its numbers.
    pub(in crate::weights) fn is_as_stored(&self) -> bool {
        !self.has_one_added
    }

    /// The bytes of a row.
    pub(in crate::weights) fn row(&self, row: usize) -> &'a [u8] {
        let width = self.format.row_bytes(self.cols).unwrap_or(0);
        &self.bytes[self.stored(row) * width..][..width]
    }

    /// Where a row is stored: of each head the rows of its two halves alternate.
    fn stored(&self, row: usize) -> usize {
        let Some(rows) = self.head_rows.filter(|rows| *rows > 1) else {
            return row;
        };
        let (head, at) = (row / rows, row % rows);
        let half = rows / 2;
        head * rows + 2 * (at % half) + at / half
    }

    /// The numbers of some rows, as they lie in the file.
    fn read_stored(&self, rows: Range<usize>, out: &mut [f32]) {
        if !self.is_vector {
            for (row, out) in rows.zip(out.chunks_mut(self.cols.max(1))) {
                self.format.decode(self.row(row), out);
            }
            return;
        }
        if self.is_in_order() {
            self.format.decode(self.bytes, out);
            return;
        }
        let mut stored = vec![0.0; out.len()];
        self.format.decode(self.bytes, &mut stored);
        for (i, out) in out.iter_mut().enumerate() {
            *out = stored[self.stored(i)];
        }
    }
}

impl RowReader for GgufRows<'_> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        self.read_stored(rows, out);
        if self.has_one_added {
            out.iter_mut().for_each(|number| *number -= 1.0);
        }
    }
}
