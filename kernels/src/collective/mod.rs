//! Devices that share one product along its summed axis (tensor parallelism), with the bits of one.
//!
//! Each rank holds a part of the columns of x and of W. Three things make the cut invisible: a
//! row's exponent is the largest of its parts' exponents, since the exponent rises with the largest
//! magnitude; sums of integers have no order; and the one rounding comes after all parts are added.

mod local;
mod nccl;
mod verify;

pub use local::{LocalRank, group};
pub use nccl::NcclRank;
pub use verify::verify;

use crate::coded::{Coded, Precision};
use crate::math::pow2_f64;
use crate::{Buffer, Device, KernelError, Tensor, cuda, reference};

/// One of several ranks that call the same operations in the same order.
pub trait Collective: Send + Sync {
    /// Its number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn ranks(&self) -> usize;

    /// Replaces each element by the sum over all ranks.
    ///
    /// # Errors
    /// [`KernelError::Collective`] where a rank is gone, [`KernelError::Cuda`] where a GPU fails.
    fn sum(&self, x: &mut Buffer<i64>) -> Result<(), KernelError>;

    /// Replaces each element by the largest over all ranks.
    ///
    /// # Errors
    /// As [`Self::sum`].
    fn max(&self, x: &mut Buffer<i32>) -> Result<(), KernelError>;
}

impl Device {
    /// Codes rows of which each rank holds some columns: x `[rows, columns of this rank]`. The
    /// exponents are those of the whole rows.
    ///
    /// # Errors
    /// Those of [`Collective`].
    pub fn code_split(
        &self,
        group: &dyn Collective,
        x: &Tensor,
        precision: Precision,
    ) -> Result<Coded, KernelError> {
        let (_, cols) = x.rows_cols();
        let mut part = self.code(x, cols, precision)?;
        let own = part.exp.clone();
        group.max(&mut part.exp)?;
        if group.ranks() == 1 {
            return Ok(Coded { exp: own, ..part });
        }
        part.q = match self {
            Self::Cuda(gpu) => {
                let exp = part.exp.on(gpu)?;
                Buffer::Cuda(cuda::code::rows_at(gpu, &x.on(gpu)?, cols, &exp)?)
            }
            _ => reference::code::codes_at(&x.values()?, cols, &part.exp.values()?).into(),
        };
        Ok(part)
    }

    /// `y = x W^T` where each rank holds some columns of x `[m, k]` and the same of W `[n, k]`:
    /// every rank gets all of y `[m, n]`, with the bits of [`Device::matmul`] on the whole.
    ///
    /// # Errors
    /// Those of [`Collective`].
    pub fn matmul_split(
        &self,
        group: &dyn Collective,
        x: &Coded,
        w: &Coded,
    ) -> Result<Tensor, KernelError> {
        assert_eq!(x.cols, w.cols, "matmul_split: columns of this rank");
        let shape = [x.rows, w.rows];
        let mut sums = match self {
            Self::Cuda(gpu) => Buffer::Cuda(cuda::matmul::partial(gpu, x, w)?),
            _ => {
                let (x, w) = (x.on_host()?, w.on_host()?);
                reference::matmul::sums(x.by_rows(), w.by_rows()).into()
            }
        };
        group.sum(&mut sums)?;
        if let Self::Cuda(gpu) = self {
            let y = cuda::matmul::rounded(gpu, &sums.on(gpu)?, x, w)?;
            return Tensor::new(&shape, y);
        }
        let (ex, ew) = (x.exp.values()?, w.exp.values()?);
        let scales = ex
            .iter()
            .flat_map(|&ex| ew.iter().map(move |&ew| (pow2_f64(ex), pow2_f64(ew))));
        let sums = sums.values()?;
        let rounded = sums
            .iter()
            .zip(scales)
            .map(|(&sum, (ex, ew))| (sum as f64 * ex * ew) as f32);
        Tensor::new(&shape, rounded.collect::<Vec<f32>>())
    }
}
