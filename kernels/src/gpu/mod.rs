//! A GPU as CUDA shows it: memory, kernels, launches, and one stream of work.
//!
//! The GPU is an NVIDIA card, or an emulated one. The operations on it are in [`crate::cuda`]. All
//! work is put into one stream and runs in that order; only a call that returns numbers to the host
//! waits for it.

pub mod arch;
mod byte_products;
mod cache;
mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
mod error;
pub mod images;
mod launch;
mod memory;
mod memory_pool;
mod modules;
mod nvidia;
pub mod nvrtc;
mod slice;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use arch::Arch;
pub use driver::Properties;
pub use error::CudaError;
pub use launch::{Argument, Grid, Kernel};
pub use memory::{DeviceMemory, MemoryPurpose, MemoryReport, PurposeScope};
pub use slice::{Element, Slice};

pub(crate) use byte_products::{ByteProducts, ProductShape};
pub(crate) use launch::arguments;

use cache::Cache;
use driver::{Driver, DriverResult, TimeMark};
use memory_pool::{Allocation, MemoryBlock, MemoryPool};
use nvidia::Nvidia;

/// An open GPU. Clones are the same GPU.
#[derive(Clone)]
pub struct Cuda(Arc<Gpu>);

struct Gpu {
    /// A library of NVIDIA's that has passed the vectors of products. It ends before the driver, in
    /// whose context it lives.
    library: OnceLock<Box<dyn ByteProducts>>,
    driver: Box<dyn Driver>,
    pool: MemoryPool,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Binds the context to this thread, which may be another than the library's.
        let _ = self.driver.synchronise();
        drop(self.library.take());
        // Every slice holds the GPU, so all memory is the pool's now. A lost card has none to give
        // back.
        let _ = self.pool.trim(&*self.driver);
    }
}

/// How a GPU is opened.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// The most bytes of its memory to hold; `None` takes nearly all that is free when it is
    /// opened. Two workers on one GPU need a limit each.
    pub memory_bytes: Option<u64>,
    /// Where compiled kernels are kept; `None` for the usual place, see `Cache::usual`.
    pub cache: Option<PathBuf>,
}

impl Cuda {
    /// Number of NVIDIA cards that the driver shows.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NotStarted`].
    pub fn count() -> DriverResult<usize> {
        nvidia::count()
    }

    /// The NVIDIA card of this number, as the driver counts them.
    ///
    /// # Errors
    /// Those of [`Self::count`], and [`CudaError::NoDevice`], [`CudaError::CardTooOld`],
    /// [`CudaError::Call`].
    pub fn open(index: usize, options: &CudaOptions) -> DriverResult<Self> {
        let cache = options
            .cache
            .as_deref()
            .map_or_else(Cache::usual, Cache::at);
        let card = Nvidia::open(index, cache)?;
        let limit = match options.memory_bytes {
            Some(bytes) => bytes,
            // The rest is for the driver: the code of kernels, and what they spill.
            None => card.memory()?.free / 16 * 15,
        };
        Ok(Self::over(card, limit))
    }

    /// A GPU over `driver`, whose pool holds at most `limit` bytes.
    pub(crate) fn over(driver: impl Driver + 'static, limit: u64) -> Self {
        Self(Arc::new(Gpu {
            driver: Box::new(driver),
            pool: MemoryPool::new(limit),
            library: OnceLock::new(),
        }))
    }

    /// What reports call the GPU.
    pub fn name(&self) -> &str {
        &self.properties().name
    }

    /// What the GPU is.
    pub fn properties(&self) -> &Properties {
        self.0.driver.properties()
    }

    /// The architecture whose kernels it runs.
    pub fn arch(&self) -> Arch {
        self.properties().arch
    }

    /// Multiprocessors, each of which runs blocks of threads.
    pub fn multiprocessors(&self) -> u32 {
        self.properties().multiprocessors
    }

    /// Bytes of shared memory that one block may ask for.
    pub fn shared_memory_max(&self) -> u32 {
        self.properties().shared_memory_max
    }

    /// What its memory is held for.
    pub fn memory(&self) -> MemoryReport {
        self.0.pool.report(&*self.0.driver)
    }

    /// Until the guard is dropped, what this thread allocates counts as held for `purpose`.
    pub fn account(&self, purpose: MemoryPurpose) -> PurposeScope {
        PurposeScope::open(purpose)
    }

    /// Gives the memory that the pool keeps for later back to the card.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub fn trim(&self) -> DriverResult<()> {
        self.0.pool.trim(&*self.0.driver)
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub fn synchronise(&self) -> DriverResult<()> {
        self.0.driver.synchronise()
    }

    /// The handle of the stream of work, for libraries of NVIDIA's; none where the GPU is emulated.
    pub(crate) fn raw_stream(&self) -> Option<u64> {
        self.0.driver.raw_stream()
    }

    /// A mark in the stream of work, to measure time from.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub(crate) fn mark(&self) -> DriverResult<TimeMark> {
        self.0.driver.event()
    }

    /// How long the GPU worked between two marks. Waits for the second.
    ///
    /// # Errors
    /// [`CudaError::Lost`].
    pub(crate) fn time_between(&self, start: TimeMark, end: TimeMark) -> DriverResult<Duration> {
        self.0.driver.elapsed(start, end)
    }

    /// Room for `len` elements, with any content.
    pub(crate) fn alloc<T: Element>(&self, len: usize) -> DriverResult<Slice<T>> {
        let bytes = len.saturating_mul(size_of::<T>());
        let allocation = self.0.pool.take(&*self.0.driver, bytes)?;
        Ok(Slice::new(MemoryBlock::new(self, allocation), len))
    }

    /// `len` zeros.
    pub(crate) fn zeros<T: Element>(&self, len: usize) -> DriverResult<Slice<T>> {
        let slice = self.alloc(len)?;
        self.clear(&slice)?;
        Ok(slice)
    }

    /// Sets every element to 0.
    pub(crate) fn clear<T: Element>(&self, slice: &Slice<T>) -> DriverResult<()> {
        if !slice.is_empty() {
            self.0.driver.fill(slice.address(), 0, slice.bytes())?;
        }
        Ok(())
    }

    /// The elements of `host`.
    pub(crate) fn upload<T: Element>(&self, host: &[T]) -> DriverResult<Slice<T>> {
        let slice = self.alloc(host.len())?;
        if !host.is_empty() {
            let bytes = bytemuck::cast_slice(host);
            self.0.driver.upload(bytes, slice.address())?;
        }
        Ok(slice)
    }

    /// The elements on the host. Waits for all work that they come from.
    pub(crate) fn download<T: Element>(&self, from: &Slice<T>) -> DriverResult<Vec<T>> {
        let mut host = vec![T::zeroed(); from.len()];
        if !host.is_empty() {
            let bytes = bytemuck::cast_slice_mut(&mut host);
            self.0.driver.download(from.address(), bytes)?;
        }
        Ok(host)
    }

    /// Copies all elements. The two do not overlap.
    ///
    /// # Panics
    /// Where their lengths differ.
    pub(crate) fn copy<T: Element>(&self, from: &Slice<T>, to: &Slice<T>) -> DriverResult<()> {
        assert_eq!(from.len(), to.len(), "a copy between slices of one length");
        if from.is_empty() {
            return Ok(());
        }
        let (source, target) = (from.address(), to.address());
        self.0.driver.copy(source, target, from.bytes())
    }

    /// Copies `slice` if others share its memory: needed before a write in place.
    pub(crate) fn unique<T: Element>(&self, slice: &mut Slice<T>) -> DriverResult<()> {
        if slice.is_shared() {
            let own = self.alloc(slice.len())?;
            self.copy(slice, &own)?;
            *slice = own;
        }
        Ok(())
    }

    /// Starts a kernel.
    pub(crate) fn start(
        &self,
        kernel: Kernel,
        grid: Grid,
        arguments: &[Argument],
    ) -> DriverResult<()> {
        self.0.driver.launch(kernel, grid, arguments)
    }

    /// The library that large products go to, where there is one.
    pub(crate) fn library(&self) -> Option<&dyn ByteProducts> {
        self.0.library.get().map(AsRef::as_ref)
    }

    /// Sends large products to `library` from now on; the first library that is set stays.
    pub(crate) fn use_library(&self, library: Box<dyn ByteProducts>) {
        self.0.library.get_or_init(|| library);
    }

    fn put(&self, allocation: Allocation) {
        self.0.pool.put(&*self.0.driver, allocation);
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.properties().name)
    }
}
