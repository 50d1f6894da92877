//! The context of a card: all calls are made in it, and what they return is checked here.

use std::ffi::CStr;
use std::sync::OnceLock;

use cudarc::driver::{result, sys};

use crate::gpu::driver::DriverResult;
use crate::gpu::error::CudaError;

/// The primary context of a card, which all that this process does with the card shares.
pub(super) struct CudaContext {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Why the card is lost, once it is: what the driver says after that means nothing.
    lost: OnceLock<String>,
}

impl CudaContext {
    /// Takes hold of the context of `device`, and binds it to this thread.
    pub(super) fn of(device: sys::CUdevice) -> DriverResult<Self> {
        // SAFETY: the device comes from the driver; `drop` releases what is retained here.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = context.map_err(|error| CudaError::Call {
            call: "cuDevicePrimaryCtxRetain",
            reason: said(error),
        })?;
        let context = Self {
            device,
            context,
            lost: OnceLock::new(),
        };
        context.bind()?;
        Ok(context)
    }

    /// Makes this the context of the thread's next calls.
    pub(super) fn bind(&self) -> DriverResult<()> {
        if let Some(cause) = self.lost.get() {
            let cause = cause.clone();
            return Err(CudaError::Lost { cause });
        }
        // SAFETY: the context is retained as long as `self` lives.
        self.done("cuCtxSetCurrent", unsafe {
            result::ctx::set_current(self.context)
        })
    }

    /// Binds the context to give back what lives in it, even where the card is lost.
    pub(super) fn bind_for_end(&self) -> bool {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }.is_ok()
    }

    /// The result of `call`, or its error as a [`CudaError`]. A card that one call finds lost stays
    /// lost.
    pub(super) fn done<T>(
        &self,
        call: &'static str,
        result: Result<T, result::DriverError>,
    ) -> DriverResult<T> {
        result.map_err(|error| {
            let reason = said(error);
            if is_loss(error.0 as u32) {
                let cause = format!("{reason}, noticed by {call}");
                let cause = self.lost.get_or_init(|| cause).clone();
                CudaError::Lost { cause }
            } else {
                CudaError::Call { call, reason }
            }
        })
    }

    /// A stream that does not wait for the default stream.
    pub(super) fn stream(&self) -> DriverResult<sys::CUstream> {
        let kind = result::stream::StreamKind::NonBlocking;
        self.done("cuStreamCreate", result::stream::create(kind))
    }

    /// An event that has not been recorded.
    pub(super) fn event(&self, flags: sys::CUevent_flags) -> DriverResult<sys::CUevent> {
        self.done("cuEventCreate", result::event::create(flags))
    }

    /// Marks the end of `stream` as it is now.
    pub(super) fn record(&self, event: sys::CUevent, stream: sys::CUstream) -> DriverResult<()> {
        // SAFETY: the callers' events and streams live, and are of this context.
        self.done("cuEventRecord", unsafe {
            result::event::record(event, stream)
        })
    }

    /// Waits until `event` has happened.
    pub(super) fn wait(&self, event: sys::CUevent) -> DriverResult<()> {
        // SAFETY: the callers' events live.
        self.done("cuEventSynchronize", unsafe {
            result::event::synchronize(event)
        })
    }

    /// Gives an event back.
    pub(super) fn destroy(&self, event: sys::CUevent) {
        // SAFETY: the callers do not use the event any more. Where the card is lost it is gone
        // anyway.
        let _ = unsafe { result::event::destroy(event) };
    }

    /// `bytes` of host memory that the card reads and writes by itself.
    pub(super) fn pinned(&self, bytes: usize) -> DriverResult<*mut u8> {
        // SAFETY: the context is bound; `unpin` gives it back.
        let memory = unsafe { result::malloc_host(bytes, 0) };
        Ok(self.done("cuMemHostAlloc", memory)?.cast())
    }

    /// Gives pinned memory back.
    ///
    /// # Safety
    /// It comes from `pinned`, and no copy into it or out of it is under way.
    pub(super) unsafe fn unpin(&self, memory: *mut u8) {
        // SAFETY: as the caller vouches.
        let _ = unsafe { result::free_host(memory.cast()) };
    }
}

impl Drop for CudaContext {
    fn drop(&mut self) {
        // SAFETY: it was retained once, by `of`. Of a lost card nothing can be given back.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// What the driver says of an error: its name, and a sentence.
pub(super) fn said(error: result::DriverError) -> String {
    let code = error.0 as u32;
    let text = |text: Result<&CStr, _>| {
        text.map_or(String::new(), |t: &CStr| t.to_string_lossy().into_owned())
    };
    match (text(error.error_name()), text(error.error_string())) {
        (name, _) if name.is_empty() => format!("error {code}"),
        (name, sentence) => format!("{name}, error {code}: {sentence}"),
    }
}

/// Whether an error means that the context is dead: nothing in it can be used again, and every
/// later call fails in the same way.
fn is_loss(code: u32) -> bool {
    match code {
        // The driver is shutting down; the card is in use by another alone, or gone.
        4 | 46 => true,
        // Memory that cannot be corrected, a broken link, a contained error.
        214 | 220 | 226 | 227 => true,
        // A kernel went out of its memory, took too long, or broke down in another way.
        700 | 702 | 709 | 710 | 714..=719 | 721 => true,
        // The server that shares the card among processes is gone, or has ended this one.
        806 | 810 => true,
        999 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_loss;

    #[test]
    fn a_dead_context_is_told_from_a_refused_call() {
        for code in [
            4, 46, 214, 220, 700, 702, 709, 710, 714, 716, 719, 721, 806, 999,
        ] {
            assert!(is_loss(code), "{code}");
        }
        // Success, invalid value, out of memory, no device, no image, not found, not ready, out of
        // resources, peer access, not supported.
        for code in [0, 1, 2, 100, 209, 500, 600, 701, 704, 801] {
            assert!(!is_loss(code), "{code}");
        }
    }
}
