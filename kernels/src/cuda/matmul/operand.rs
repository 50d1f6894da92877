//! What a product takes on a GPU: codes with any strides.

use crate::coded::{Coded, Precision};
use crate::cuda::{Cuda, Result, Slice};

/// One side of a product, seen as rows by depth: the twin of [`crate::coded::Operand`].
#[derive(Clone, Debug)]
pub(crate) struct GpuOperand {
    /// Codes; element (row, depth) stands at `row * row_stride + depth * depth_stride`.
    pub(crate) q: Slice<i16>,
    pub(crate) rows: usize,
    /// Length of the summed axis.
    pub(crate) depth: usize,
    /// Distance between two rows, in elements.
    pub(crate) row_stride: usize,
    /// Distance between two neighbours along the depth, in elements.
    pub(crate) depth_stride: usize,
    /// Exponent of each row; none where they were folded into the other operand.
    pub(crate) exp: Option<Slice<i32>>,
    /// The limit that every code keeps.
    pub(crate) precision: Precision,
}

impl GpuOperand {
    /// The rows as they are: the depth is the column axis.
    pub(crate) fn by_rows(cuda: &Cuda, coded: &Coded) -> Result<Self> {
        Ok(Self {
            q: coded.q.on(cuda)?,
            rows: coded.rows,
            depth: coded.cols,
            row_stride: coded.cols,
            depth_stride: 1,
            exp: Some(coded.exp.on(cuda)?),
            precision: coded.precision,
        })
    }

    /// The columns, summed over all rows; the exponents of the rows must have been folded into the
    /// other operand.
    pub(crate) fn by_cols(cuda: &Cuda, coded: &Coded) -> Result<Self> {
        Ok(Self {
            q: coded.q.on(cuda)?,
            rows: coded.cols,
            depth: coded.rows,
            row_stride: 1,
            depth_stride: coded.cols,
            exp: None,
            precision: coded.precision,
        })
    }

    /// The steps `[start, start + depth)` of the summed axis.
    pub(super) fn along(&self, start: usize, depth: usize) -> Self {
        let skipped = start * self.depth_stride;
        Self {
            q: self.q.part(skipped, self.q.len() - skipped),
            depth,
            ..self.clone()
        }
    }

    pub(super) fn digits(&self) -> usize {
        match self.precision {
            Precision::I8 => 1,
            Precision::I14 | Precision::I16 => 2,
        }
    }

    /// Whether every element lies within the codes.
    pub(super) fn is_inside(&self) -> bool {
        let last = |count: usize, stride: usize| count.saturating_sub(1).checked_mul(stride);
        last(self.rows, self.row_stride)
            .zip(last(self.depth, self.depth_stride))
            .and_then(|(row, depth)| row.checked_add(depth))
            .is_some_and(|last| last < self.q.len())
    }
}
