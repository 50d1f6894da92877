//! Row coding.

use crate::coded::{Coded, Precision};
use crate::packed::{BlockFormat, PackedRows, SharedBytes};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Codes the rows of `x`, seen as rows of `cols` elements.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn code(
        &self,
        x: &Tensor,
        cols: usize,
        precision: Precision,
    ) -> Result<Coded, KernelError> {
        match self {
            Self::Cuda(gpu) => cuda::code::rows(gpu, &x.on(gpu)?, cols, None, precision),
            _ => Ok(self.code_rows(&x.values()?, cols, None, precision)),
        }
    }

    /// A matrix that stays packed, `[rows, cols]` as blocks of `format`, ready for products: finds
    /// the exponent of each row, which reads all bytes once. It lies on the host whatever the
    /// device; a GPU, which multiplies codes, is better given those ([`Device::code`]).
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] where a row is no whole number of blocks, or the bytes do not
    /// fill the shape.
    pub fn packed_rows(
        &self,
        format: BlockFormat,
        shape: [usize; 2],
        bytes: SharedBytes,
        precision: Precision,
    ) -> Result<PackedRows, KernelError> {
        let width = format.row_bytes(shape[1]).unwrap_or(0);
        // Shapes that the bytes do not fill are refused below, before there is room for them.
        let is_filled = bytes.as_slice().len().checked_div(width) == Some(shape[0]);
        let rows = if is_filled { shape[0] } else { 0 };
        let mut exp = vec![reference::code::EMPTY; rows];
        if is_filled {
            let bytes = bytes.as_slice();
            match self {
                Self::Cpu(cpu) => {
                    cpu::code::exponents(cpu, format, shape[1], bytes, precision, &mut exp);
                }
                _ => PackedRows::exponents(format, shape[1], bytes, precision, &mut exp),
            }
        }
        PackedRows::new(format, shape, bytes, precision, exp)
    }

    pub(super) fn code_rows(
        &self,
        x: &[f32],
        cols: usize,
        fold: Option<&[i32]>,
        p: Precision,
    ) -> Coded {
        match self {
            Self::Cpu(cpu) => cpu::code::code_rows(cpu, x, cols, fold, p),
            _ => reference::code::code_rows(x, cols, fold, p),
        }
    }

    pub(super) fn code_cols(
        &self,
        x: &[f32],
        cols: usize,
        fold: Option<&[i32]>,
        p: Precision,
    ) -> Coded {
        match self {
            Self::Cpu(cpu) => cpu::code::code_cols(cpu, x, cols, fold, p),
            _ => reference::code::code_cols(x, cols, fold, p),
        }
    }
}
