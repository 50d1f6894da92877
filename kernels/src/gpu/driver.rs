//! The interface to a GPU: the few calls that everything above is built on.
//!
//! [`Cuda`](super::Cuda) reaches the GPU through this trait alone, so the same operations run on an
//! NVIDIA card, on the emulated one, and on the fakes of tests.

use std::time::Duration;

use super::arch::Arch;
use super::error::CudaError;
use super::launch::{Argument, Grid, Kernel};
use super::memory::DeviceMemory;

/// What a call of the driver gives.
pub type DriverResult<T> = Result<T, CudaError>;

/// Where something lies in the memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceAddress(pub u64);

/// A point in the stream of work, to measure time from: see [`Driver::event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeMark(pub u64);

/// The properties of a GPU. They do not change while it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// What its maker calls it, such as "NVIDIA A100-SXM4-80GB".
    pub name: String,
    /// Compute capability, major and minor.
    pub compute: (u32, u32),
    /// The architecture whose kernels it runs.
    pub arch: Arch,
    /// Multiprocessors, each of which runs blocks of threads.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_memory_max: u32,
    /// Version of CUDA that the driver speaks, major and minor.
    pub driver_version: (u32, u32),
}

/// One open GPU with one stream of work.
///
/// Fills, copies between places on the device, uploads and launches are put at the end of the
/// stream and run in that order. Any thread may call. Addresses come from [`Driver::alloc`]: the
/// pool and [`Slice`](super::Slice) keep every range that is passed here within an allocation that
/// lives.
///
/// # Errors
/// Once the GPU is lost, every call gives [`CudaError::Lost`].
pub trait Driver: Send + Sync {
    /// Its properties.
    fn properties(&self) -> &Properties;

    /// Whether the pool may round sizes up and keep what was freed.
    fn is_pooled(&self) -> bool {
        true
    }

    /// The handle of the stream of work, for libraries of NVIDIA's that put work into it; none
    /// where no such library can work on this GPU.
    fn raw_stream(&self) -> Option<u64> {
        None
    }

    /// How much memory it has.
    fn memory(&self) -> DriverResult<DeviceMemory>;

    /// `bytes` (more than 0) of memory, aligned to 256 bytes, with any content; `None` where it has
    /// run out.
    fn alloc(&self, bytes: usize) -> DriverResult<Option<DeviceAddress>>;

    /// Frees an allocation, once the work put into the stream so far is done with it.
    fn free(&self, address: DeviceAddress) -> DriverResult<()>;

    /// Fills `bytes` at `to` with `byte`.
    fn fill(&self, to: DeviceAddress, byte: u8, bytes: usize) -> DriverResult<()>;

    /// Copies `bytes` on the device. The ranges do not overlap.
    fn copy(&self, from: DeviceAddress, to: DeviceAddress, bytes: usize) -> DriverResult<()>;

    /// Copies `host` to the device. `host` may change as soon as the call returns.
    fn upload(&self, host: &[u8], to: DeviceAddress) -> DriverResult<()>;

    /// Copies from the device and waits until the bytes have arrived.
    fn download(&self, from: DeviceAddress, host: &mut [u8]) -> DriverResult<()>;

    /// Starts a kernel. Copies the arguments.
    fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) -> DriverResult<()>;

    /// Waits until all work put into the stream so far is done.
    fn synchronise(&self) -> DriverResult<()>;

    /// Marks the end of the stream as it is now.
    fn event(&self) -> DriverResult<TimeMark>;

    /// Waits for `end` and gives the time between the two. Both are used up.
    fn elapsed(&self, start: TimeMark, end: TimeMark) -> DriverResult<Duration>;
}
