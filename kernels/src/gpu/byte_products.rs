//! Products of bytes by a library of NVIDIA's.

use std::fmt;

use super::Slice;
use super::driver::DriverResult;

/// A product by size: A has `rows`, B has `cols`, the summed axis is `depth` long. None is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProductShape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) depth: usize,
}

/// Exact products of bytes, with sums of 32 bits.
pub(crate) trait ByteProducts: fmt::Debug + Send + Sync {
    /// `sums[m][n] = sum_k a[m][k] * b[n][k]`, added to what is there where `adds`. The sizes are
    /// multiples of 32, and rows follow each other without gaps. What it puts into the stream of
    /// `cuda` comes after the launches so far.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the library refuses.
    fn multiply(
        &self,
        shape: ProductShape,
        a: &Slice<i8>,
        b: &Slice<i8>,
        sums: &Slice<i32>,
        adds: bool,
    ) -> DriverResult<()>;
}
