//! The CUDA back-end: the kernels of `kernels/cuda/*.cu`, launched on a [GPU](crate::gpu).
//!
//! A file that is named after an operation has a twin of that name in [`crate::reference`].

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod adamw_8bit;
pub(crate) mod attention;
pub(crate) mod blake3;
pub(crate) mod code;
pub(crate) mod columns;
pub(crate) mod cross_entropy;
pub mod cublas;
mod cublaslt;
pub mod elementwise;
pub(crate) mod embedding;
pub(crate) mod experts;
mod grids;
pub mod keys;
pub(crate) mod layernorm;
pub(crate) mod lion;
pub(crate) mod lion_8bit;
pub mod matmul;
pub(crate) mod noise;
mod page_codes;
pub mod pages;
pub mod peak;
pub(crate) mod reduce;
pub(crate) mod rmsnorm;
pub(crate) mod rope;
pub(crate) mod route;
pub(crate) mod sample;
pub(crate) mod sgd;
pub(crate) mod soft_cap;

use std::time::Duration;

#[cfg(feature = "emulator")]
pub use crate::gpu::emulator;
pub use crate::gpu::{
    Arch, Argument, Cuda, CudaError, CudaOptions, DeviceMemory, Element, Grid, Kernel,
    MemoryPurpose, MemoryReport, Properties, PurposeScope, Slice, arch, images, nvrtc,
};
pub use matmul::ProductEngine;

pub(crate) use crate::gpu::arguments;

use crate::KernelError;

/// What operations on a GPU give.
pub(crate) type Result<T> = std::result::Result<T, KernelError>;

impl Cuda {
    /// Launches a kernel, after all that the stream of work holds.
    pub(crate) fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) -> Result<()> {
        Ok(self.start(kernel, grid, arguments)?)
    }

    /// How long the GPU works on what `work` puts into the stream.
    ///
    /// # Errors
    /// Those of `work`, and [`CudaError::Lost`].
    pub fn timed<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(R, Duration)> {
        let start = self.mark()?;
        let result = work();
        let time = self.time_between(start, self.mark()?)?;
        Ok((result?, time))
    }
}
