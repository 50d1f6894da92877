//! The pool of device memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Cuda;
use super::driver::{DeviceAddress, Driver, DriverResult};
use super::error::CudaError;
use super::memory::{MemoryPurpose, MemoryReport, PurposeScope};

/// Allocations of the driver, kept by size for reuse. Freed memory may be given out again while
/// earlier work still reads it: what the new owner does comes later in the one stream of work.
#[derive(Debug)]
pub(super) struct MemoryPool {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes in use, by purpose.
    held: [u64; MemoryPurpose::ALL.len()],
    /// Free blocks by size.
    free: BTreeMap<usize, Vec<DeviceAddress>>,
    cached: u64,
    peak: u64,
    limit: u64,
}

impl MemoryPool {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            state: Mutex::new(State {
                held: [0; MemoryPurpose::ALL.len()],
                free: BTreeMap::new(),
                cached: 0,
                peak: 0,
                limit,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of at least `bytes`, for the purpose of this thread.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] where neither the pool nor the card has it.
    pub(super) fn take(&self, driver: &dyn Driver, bytes: usize) -> DriverResult<Allocation> {
        let purpose = PurposeScope::now();
        let size = match driver.is_pooled() {
            true => size_class(bytes),
            false => bytes.max(1),
        };
        let mut state = self.state();
        let address = match state.reuse(size) {
            Some(address) => address,
            None => match state.grow(driver, size)? {
                Some(address) => address,
                None => {
                    return Err(CudaError::OutOfMemory {
                        asked: bytes as u64,
                        purpose,
                        report: Box::new(state.report(driver)),
                    });
                }
            },
        };
        state.held[purpose as usize] += size as u64;
        state.peak = state.peak.max(state.in_use());
        Ok(Allocation {
            address,
            size,
            purpose,
        })
    }

    /// Puts a block back.
    pub(super) fn put(&self, driver: &dyn Driver, taken: Allocation) {
        let mut state = self.state();
        state.held[taken.purpose as usize] -= taken.size as u64;
        if !driver.is_pooled() {
            // Only a lost GPU refuses, and its memory is gone.
            drop(driver.free(taken.address));
            return;
        }
        state.cached += taken.size as u64;
        state
            .free
            .entry(taken.size)
            .or_default()
            .push(taken.address);
    }

    /// Gives the kept blocks back to the card.
    pub(super) fn trim(&self, driver: &dyn Driver) -> DriverResult<()> {
        self.state().trim(driver)
    }

    pub(super) fn report(&self, driver: &dyn Driver) -> MemoryReport {
        self.state().report(driver)
    }
}

impl State {
    fn in_use(&self) -> u64 {
        self.held.iter().sum()
    }

    /// A kept block of exactly `size`.
    fn reuse(&mut self, size: usize) -> Option<DeviceAddress> {
        let address = self.free.get_mut(&size)?.pop()?;
        self.cached -= size as u64;
        Some(address)
    }

    /// A new block from the card; where there is no room, after giving the kept ones back.
    fn grow(&mut self, driver: &dyn Driver, size: usize) -> DriverResult<Option<DeviceAddress>> {
        if self.has_room(size)
            && let Some(address) = driver.alloc(size)?
        {
            return Ok(Some(address));
        }
        if self.cached == 0 {
            return Ok(None);
        }
        self.trim(driver)?;
        if self.has_room(size) {
            driver.alloc(size)
        } else {
            Ok(None)
        }
    }

    fn has_room(&self, size: usize) -> bool {
        (self.in_use() + self.cached).saturating_add(size as u64) <= self.limit
    }

    fn trim(&mut self, driver: &dyn Driver) -> DriverResult<()> {
        if self.cached > 0 {
            // Kernels that still read or write a kept block end before the card takes it back.
            driver.synchronise()?;
        }
        self.cached = 0;
        for address in std::mem::take(&mut self.free).into_values().flatten() {
            driver.free(address)?;
        }
        Ok(())
    }

    fn report(&self, driver: &dyn Driver) -> MemoryReport {
        MemoryReport {
            held: self.held,
            cached: self.cached,
            peak: self.peak,
            limit: self.limit,
            device: driver.memory().ok(),
        }
    }
}

/// The size of the block that `bytes` are served from: a multiple of 256 up to 4 KiB, then eight
/// steps to each power of two, so at most an eighth is wasted. Every step of a job asks for the
/// same sizes, so blocks are reused.
fn size_class(bytes: usize) -> usize {
    const LEAST: usize = 256;
    let bytes = bytes.max(1);
    let power = bytes.next_power_of_two();
    let step = (power / 16).max(LEAST);
    bytes.next_multiple_of(step)
}

/// A block that the pool has given out.
#[derive(Debug)]
pub(super) struct Allocation {
    address: DeviceAddress,
    size: usize,
    purpose: MemoryPurpose,
}

/// Device memory that goes back to the pool when it is dropped.
pub(super) struct MemoryBlock {
    cuda: Cuda,
    taken: Option<Allocation>,
    address: DeviceAddress,
}

impl MemoryBlock {
    pub(super) fn new(cuda: &Cuda, taken: Allocation) -> Self {
        Self {
            cuda: cuda.clone(),
            address: taken.address,
            taken: Some(taken),
        }
    }

    pub(super) fn cuda(&self) -> &Cuda {
        &self.cuda
    }

    pub(super) fn address(&self) -> DeviceAddress {
        self.address
    }
}

impl Drop for MemoryBlock {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.cuda.put(taken);
        }
    }
}

#[cfg(test)]
mod tests;
