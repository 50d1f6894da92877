//! An NVIDIA card, through the driver that the machine has.
//!
//! The driver is loaded when a card is first opened, so the same binary runs where there is none.
//! One stream takes all work in order; downloads go through a second one, which waits for what they
//! read and not for what comes after it.

mod context;
mod kernels;
mod staging;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::time::Duration;

use cudarc::driver::{result, sys};

use super::arch::CodeTarget;
use super::cache::Cache;
use super::driver::{DeviceAddress, Driver, DriverResult, Properties, TimeMark};
use super::error::{CudaError, DRIVER_NEEDED};
use super::launch::{Argument, Grid, Kernel};
use super::memory::DeviceMemory;
use context::{CudaContext, said};
use kernels::Kernels;
use staging::{Downloads, Uploads};

/// Number of cards that the driver shows.
///
/// # Errors
/// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NotStarted`].
pub(super) fn count() -> DriverResult<usize> {
    start()?;
    let count = result::device::get_count().map_err(not_started)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// An open card.
pub(super) struct Nvidia {
    properties: Properties,
    kernels: Kernels,
    uploads: Uploads,
    downloads: Downloads,
    /// Takes all work.
    stream: sys::CUstream,
    /// After what lives in it.
    context: CudaContext,
}

// SAFETY: streams, modules and events may be used from any thread that has bound the context, which
// every call does first; what several calls change lies behind locks.
unsafe impl Send for Nvidia {}
// SAFETY: as above.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// The card of this number, as the driver counts them.
    ///
    /// # Errors
    /// Those of [`count`]; [`CudaError::NoDevice`], [`CudaError::CardTooOld`], and
    /// [`CudaError::Call`] where the card is there and cannot be used.
    pub(super) fn open(index: usize, cache: Cache) -> DriverResult<Self> {
        let version = start()?;
        let count = count()?;
        let ordinal = i32::try_from(index).ok().filter(|_| index < count);
        let ordinal = ordinal.ok_or(CudaError::NoDevice { index, count })?;
        let device = result::device::get(ordinal).map_err(not_started)?;
        let name = result::device::get_name(device).map_err(not_started)?;
        let compute = (
            attribute(
                device,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            )?,
            attribute(
                device,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )?,
        );
        let Some(target) = CodeTarget::of_card(compute) else {
            return Err(CudaError::CardTooOld { name, compute });
        };
        let properties = Properties {
            name,
            compute,
            arch: target.arch,
            multiprocessors: attribute(
                device,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )?,
            shared_memory_max: attribute(
                device,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            driver_version: version,
        };
        let context = CudaContext::of(device)?;
        let stream = context.stream()?;
        Ok(Self {
            kernels: Kernels::new(target, properties.shared_memory_max, cache),
            uploads: Uploads::new(),
            downloads: Downloads::new(&context)?,
            properties,
            stream,
            context,
        })
    }
}

impl Driver for Nvidia {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn raw_stream(&self) -> Option<u64> {
        Some(self.stream as usize as u64)
    }

    fn memory(&self) -> DriverResult<DeviceMemory> {
        self.context.bind()?;
        let (free, total) = self.context.done("cuMemGetInfo", result::mem_get_info())?;
        Ok(DeviceMemory {
            free: free as u64,
            total: total as u64,
        })
    }

    fn alloc(&self, bytes: usize) -> DriverResult<Option<DeviceAddress>> {
        self.context.bind()?;
        // SAFETY: the context is bound; the address is freed by `free` alone.
        let address = unsafe { result::malloc_sync(bytes) };
        match address {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            other => Ok(Some(DeviceAddress(self.context.done("cuMemAlloc", other)?))),
        }
    }

    fn free(&self, address: DeviceAddress) -> DriverResult<()> {
        self.context.bind()?;
        // SAFETY: the address comes from `alloc`, and the pool forgets it with this call, which
        // waits for all work that may use it.
        self.context
            .done("cuMemFree", unsafe { result::free_sync(address.0) })
    }

    fn fill(&self, to: DeviceAddress, byte: u8, bytes: usize) -> DriverResult<()> {
        self.context.bind()?;
        // SAFETY: the range lies in an allocation that lives until the work put in here is done.
        let filled = unsafe { result::memset_d8_async(to.0, byte, bytes, self.stream) };
        self.context.done("cuMemsetD8Async", filled)
    }

    fn copy(&self, from: DeviceAddress, to: DeviceAddress, bytes: usize) -> DriverResult<()> {
        self.context.bind()?;
        // SAFETY: both ranges lie in allocations that live until the work put in here is done.
        let copied = unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) };
        self.context.done("cuMemcpyDtoDAsync", copied)
    }

    fn upload(&self, host: &[u8], to: DeviceAddress) -> DriverResult<()> {
        self.context.bind()?;
        self.uploads.copy(&self.context, self.stream, host, to)
    }

    fn download(&self, from: DeviceAddress, host: &mut [u8]) -> DriverResult<()> {
        self.context.bind()?;
        self.downloads.copy(&self.context, self.stream, from, host)
    }

    fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) -> DriverResult<()> {
        self.context.bind()?;
        self.kernels
            .launch(&self.context, self.stream, kernel, grid, arguments)
    }

    fn synchronise(&self) -> DriverResult<()> {
        self.context.bind()?;
        // SAFETY: the stream lives as long as `self`.
        let waited = unsafe { result::stream::synchronize(self.stream) };
        self.context.done("cuStreamSynchronize", waited)
    }

    fn event(&self) -> DriverResult<TimeMark> {
        self.context.bind()?;
        let event = self.context.event(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
        self.context.record(event, self.stream)?;
        Ok(TimeMark(event as usize as u64))
    }

    fn elapsed(&self, start: TimeMark, end: TimeMark) -> DriverResult<Duration> {
        self.context.bind()?;
        let [start, end] = [start, end].map(|event| event.0 as usize as sys::CUevent);
        self.context.wait(end)?;
        // SAFETY: both come from `event`, and `end` has happened.
        let elapsed = unsafe { result::event::elapsed(start, end) };
        for event in [start, end] {
            self.context.destroy(event);
        }
        let milliseconds = self.context.done("cuEventElapsedTime", elapsed)?;
        Ok(Duration::from_secs_f64(
            f64::from(milliseconds.max(0.0)) / 1e3,
        ))
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if self.context.bind_for_end() {
            // SAFETY: nothing is put into the stream any more. Of a card that is lost nothing can
            // be given back, so what these calls say changes nothing.
            unsafe {
                let _ = result::stream::synchronize(self.stream);
                self.uploads.end(&self.context);
                self.downloads.end(&self.context);
                self.kernels.end();
                let _ = result::stream::destroy(self.stream);
            }
        }
    }
}

/// Loads and starts the driver, and gives the version of CUDA that it speaks.
fn start() -> DriverResult<(u32, u32)> {
    // SAFETY: loading the driver's library runs its initialisers, which ask nothing of the process.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let mut version = 0;
    // SAFETY: it writes one integer, and may be called before the driver is started.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(not_started)?;
    let version = u32::try_from(version).unwrap_or(0);
    let version = (version / 1000, version % 1000 / 10);
    if version < DRIVER_NEEDED.0 {
        return Err(CudaError::DriverTooOld { found: version });
    }
    match result::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
            Err(CudaError::NoDevice { index: 0, count: 0 })
        }
        other => other.map(|()| version).map_err(not_started),
    }
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> DriverResult<u32> {
    // SAFETY: the device comes from the driver.
    let value = unsafe { result::device::get_attribute(device, attribute) }.map_err(not_started)?;
    Ok(u32::try_from(value).unwrap_or(0))
}

fn not_started(error: result::DriverError) -> CudaError {
    CudaError::NotStarted {
        reason: said(error),
    }
}
