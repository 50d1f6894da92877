//! Copies between the host and a card, through pinned host memory, which the card reads and writes
//! directly.

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::{result, sys};

use super::context::CudaContext;
use crate::gpu::driver::{DeviceAddress, DriverResult};

/// Bytes of pinned memory for uploads: enough that small ones never wait for the work before them.
const UPLOAD_BYTES: usize = 32 << 20;

/// The most that one copy takes, so that the host fills one part while the card reads another.
const PART_BYTES: usize = UPLOAD_BYTES / 4;

/// Bytes of each of the two halves that downloads take turns with.
const HALF_BYTES: usize = 4 << 20;

/// Uploads: a ring of pinned memory. A part is filled, its copy is put into the stream, and the
/// part is filled again only when that copy has happened.
pub(super) struct Uploads(Mutex<Ring>);

struct Ring {
    /// Null until it is first needed.
    memory: *mut u8,
    head: usize,
    /// Copies that may be under way, oldest first.
    copies: VecDeque<Copying>,
    /// Events for the next copies.
    events: Vec<sys::CUevent>,
}

struct Copying {
    start: usize,
    end: usize,
    done: sys::CUevent,
}

impl Uploads {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Ring {
            memory: ptr::null_mut(),
            head: 0,
            copies: VecDeque::new(),
            events: Vec::new(),
        }))
    }

    /// Puts the copy of `host` to the card into `stream`.
    pub(super) fn copy(
        &self,
        context: &CudaContext,
        stream: sys::CUstream,
        host: &[u8],
        to: DeviceAddress,
    ) -> DriverResult<()> {
        let mut ring = lock(&self.0);
        if ring.memory.is_null() {
            ring.memory = context.pinned(UPLOAD_BYTES)?;
        }
        for (number, part) in host.chunks(PART_BYTES).enumerate() {
            let to = to.0 + (number * PART_BYTES) as u64;
            ring.part(context, stream, part, to)?;
        }
        Ok(())
    }

    /// Gives the pinned memory back.
    ///
    /// # Safety
    /// The context is bound, and the stream is idle for good.
    pub(super) unsafe fn end(&self, context: &CudaContext) {
        let mut ring = lock(&self.0);
        let under_way: Vec<_> = ring.copies.drain(..).map(|copy| copy.done).collect();
        let spare = std::mem::take(&mut ring.events);
        under_way
            .into_iter()
            .chain(spare)
            .for_each(|event| context.destroy(event));
        if !ring.memory.is_null() {
            // SAFETY: it comes from `pinned`, and no copy is under way, as the caller vouches.
            unsafe { context.unpin(ring.memory) };
            ring.memory = ptr::null_mut();
        }
    }
}

impl Ring {
    fn part(
        &mut self,
        context: &CudaContext,
        stream: sys::CUstream,
        part: &[u8],
        to: u64,
    ) -> DriverResult<()> {
        let start = self.room(context, part.len())?;
        let end = start + part.len();
        // SAFETY: `room` gives a range within the ring that no copy reads, and the ring is locked.
        let staged = unsafe {
            let staged = self.memory.add(start);
            ptr::copy_nonoverlapping(part.as_ptr(), staged, part.len());
            std::slice::from_raw_parts(staged, part.len())
        };
        let done = match self.events.pop() {
            Some(event) => event,
            None => context.event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
        };
        // SAFETY: the source is pinned, and stays as it is until `done` has happened; the target
        // lies in an allocation that lives until then.
        let copied = unsafe { result::memcpy_htod_async(to, staged, stream) };
        let recorded = context
            .done("cuMemcpyHtoDAsync", copied)
            .and_then(|()| context.record(done, stream));
        if let Err(error) = recorded {
            context.destroy(done);
            return Err(error);
        }
        self.copies.push_back(Copying { start, end, done });
        Ok(())
    }

    /// A range of `len` that no copy reads any more; it waits for the oldest copies where it must.
    fn room(&mut self, context: &CudaContext, len: usize) -> DriverResult<usize> {
        let start = if self.head + len > UPLOAD_BYTES {
            0
        } else {
            self.head
        };
        let end = start + len;
        while self
            .copies
            .iter()
            .any(|copy| copy.start < end && start < copy.end)
        {
            let Some(oldest) = self.copies.pop_front() else {
                break;
            };
            let waited = context.wait(oldest.done);
            self.events.push(oldest.done);
            waited?;
        }
        // The next begins where every kind of element is aligned.
        self.head = end.next_multiple_of(64);
        Ok(start)
    }
}

/// Downloads: two halves of pinned memory and a stream of their own. The card fills one half while
/// the host empties the other.
pub(super) struct Downloads(Mutex<Halves>);

struct Halves {
    /// Null until it is first needed.
    memory: *mut u8,
    stream: sys::CUstream,
    /// What is read has been written.
    ready: sys::CUevent,
    /// The half has been filled.
    filled: [sys::CUevent; 2],
}

impl Downloads {
    pub(super) fn new(context: &CudaContext) -> DriverResult<Self> {
        let event = || context.event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Ok(Self(Mutex::new(Halves {
            memory: ptr::null_mut(),
            stream: context.stream()?,
            ready: event()?,
            filled: [event()?, event()?],
        })))
    }

    /// Copies from the card and waits for it; only for what `work` holds now, not for what comes
    /// later.
    pub(super) fn copy(
        &self,
        context: &CudaContext,
        work: sys::CUstream,
        from: DeviceAddress,
        host: &mut [u8],
    ) -> DriverResult<()> {
        let mut halves = lock(&self.0);
        if halves.memory.is_null() {
            halves.memory = context.pinned(2 * HALF_BYTES)?;
        }
        context.record(halves.ready, work)?;
        // SAFETY: the event and the stream live.
        let ordered = unsafe {
            result::stream::wait_event(
                halves.stream,
                halves.ready,
                sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
            )
        };
        context.done("cuStreamWaitEvent", ordered)?;
        // One copy is always under way while the host empties the half before it.
        let mut before: Option<(usize, &mut [u8])> = None;
        for (number, part) in host.chunks_mut(HALF_BYTES).enumerate() {
            let (half, from) = (number % 2, from.0 + (number * HALF_BYTES) as u64);
            halves.fill(context, half, from, part.len())?;
            if let Some((half, part)) = before.replace((half, part)) {
                halves.empty(context, half, part)?;
            }
        }
        before.map_or(Ok(()), |(half, part)| halves.empty(context, half, part))
    }

    /// Gives the pinned memory and the stream back.
    ///
    /// # Safety
    /// The context is bound, and nothing is copied any more.
    pub(super) unsafe fn end(&self, context: &CudaContext) {
        let mut halves = lock(&self.0);
        for event in [halves.ready, halves.filled[0], halves.filled[1]] {
            context.destroy(event);
        }
        // SAFETY: nothing is put into the stream any more; the memory comes from `pinned`.
        unsafe {
            let _ = result::stream::synchronize(halves.stream);
            let _ = result::stream::destroy(halves.stream);
            if !halves.memory.is_null() {
                context.unpin(halves.memory);
                halves.memory = ptr::null_mut();
            }
        }
    }
}

impl Halves {
    /// Puts the copy of `len` bytes into a half behind what is copied now.
    fn fill(
        &mut self,
        context: &CudaContext,
        half: usize,
        from: u64,
        len: usize,
    ) -> DriverResult<()> {
        // SAFETY: the half lies in the pinned memory and was emptied before, or is not read again;
        // the source lies in an allocation that the caller holds until the copy has happened.
        let copied = unsafe {
            let staged = self.memory.add(half * HALF_BYTES);
            let staged = std::slice::from_raw_parts_mut(staged, len);
            result::memcpy_dtoh_async(staged, from, self.stream)
        };
        context.done("cuMemcpyDtoHAsync", copied)?;
        context.record(self.filled[half], self.stream)
    }

    /// Waits for a half, and takes what it holds.
    fn empty(&mut self, context: &CudaContext, half: usize, host: &mut [u8]) -> DriverResult<()> {
        context.wait(self.filled[half])?;
        // SAFETY: the card has filled as many bytes of the half, and writes no more into it.
        unsafe {
            let staged = self.memory.add(half * HALF_BYTES);
            ptr::copy_nonoverlapping(staged, host.as_mut_ptr(), host.len());
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A copy that panicked half way left nothing that the next one reads.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
