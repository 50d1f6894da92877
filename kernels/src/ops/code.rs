//! Row coding.

use crate::coded::{Coded, Precision};
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
