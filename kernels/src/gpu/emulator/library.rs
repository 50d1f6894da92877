//! The kernels that the build compiled for the host, and the memory that they work on. What is C
//! here is declared in `kernels/emulator/launch.h` and `entry.h`.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};

use super::Turns;
use crate::gpu::arch::Arch;
use crate::gpu::driver::{DeviceAddress, DriverResult};
use crate::gpu::error::CudaError;
use crate::gpu::launch::{Argument, Grid, Kernel};

/// A kernel of the library.
#[repr(C)]
pub(super) struct Entry {
    name: *const c_char,
    kinds: *const c_char,
    call: extern "C" fn(*mut *mut c_void),
    arguments: u32,
    threads_max: u32,
}

// SAFETY: entries are constants of the library, with texts that are constants too.
unsafe impl Sync for Entry {}

#[repr(C)]
struct Module {
    name: *const c_char,
    entries: *const Entry,
    count: u32,
    arch: u32,
}

#[repr(C)]
struct Launch {
    kernel: *const Entry,
    arguments: *mut *mut c_void,
    seed: u64,
    blocks: [u32; 3],
    threads: u32,
    shared: u32,
    order: u32,
}

unsafe extern "C" {
    fn concord_emulator_modules(count: *mut u64) -> *const *const Module;
    fn concord_emulator_launch(
        launch: *const Launch,
        message: *mut c_char,
        capacity: u64,
        fault: *mut u64,
    ) -> c_int;
    fn concord_emulator_alloc(bytes: u64) -> *mut c_void;
    fn concord_emulator_free(memory: *mut c_void, bytes: u64);
    fn concord_emulator_intact(memory: *const c_void, bytes: u64) -> c_int;
}

impl Entry {
    /// The most threads of a block.
    pub(super) fn threads_max(&self) -> u32 {
        self.threads_max
    }

    /// A letter per argument: p for a pointer, f and d for floats, i and l for integers of 4 and 8
    /// bytes.
    fn kinds(&self) -> &'static str {
        text(self.kinds)
    }

    /// Why the kernel cannot take `arguments`, if it cannot.
    fn refusal(&self, arguments: &[Argument]) -> Option<String> {
        let kinds = self.kinds();
        if kinds.len() != arguments.len() {
            let (want, got) = (kinds.len(), arguments.len());
            return Some(format!("it takes {want} arguments ({kinds}), got {got}"));
        }
        let sizes = kinds
            .bytes()
            .map(|kind| if b"if".contains(&kind) { 4 } else { 8 });
        let mut pairs = sizes.zip(arguments).enumerate();
        let wrong = pairs.find(|(_, (size, argument))| argument.bytes().len() != *size);
        wrong.map(|(index, (size, argument))| {
            let got = argument.bytes().len();
            format!("argument {index} (of {kinds}) has {size} bytes, got {got}")
        })
    }
}

fn text(of: *const c_char) -> &'static str {
    // SAFETY: the library's names are constants of it that end in a zero byte.
    let text = unsafe { CStr::from_ptr(of) };
    // Names in C++ are ASCII; no launch would find any other.
    text.to_str().unwrap_or("")
}

/// The kernels that a GPU runs.
pub(super) struct EmulatorLibrary {
    kernels: BTreeMap<(&'static str, &'static str), &'static Entry>,
}

impl EmulatorLibrary {
    /// Takes from each module the kernels for the latest generation that is not later than `arch`.
    pub(super) fn of(arch: Arch) -> Self {
        let mut count = 0;
        // SAFETY: the call writes the number of modules, and gives a constant array of as many.
        let modules: &'static [*const Module] = unsafe {
            let modules = concord_emulator_modules(&raw mut count);
            std::slice::from_raw_parts(modules, count as usize)
        };
        let mut kernels = BTreeMap::new();
        // The build lists the generations of a module from the earliest on: a later one replaces
        // it.
        for &module in modules {
            // SAFETY: modules are constants of the library, each with `count` entries.
            let (module, entries): (&'static Module, &'static [Entry]) = unsafe {
                let module = &*module;
                let entries = std::slice::from_raw_parts(module.entries, module.count as usize);
                (module, entries)
            };
            if module.arch <= arch.0 {
                let named = entries
                    .iter()
                    .map(|e| ((text(module.name), text(e.name)), e));
                kernels.extend(named);
            }
        }
        Self { kernels }
    }

    pub(super) fn find(&self, kernel: Kernel) -> Option<&'static Entry> {
        self.kernels.get(&(kernel.module, kernel.name)).copied()
    }
}

/// The live allocations. Each is a mapping of its own; those that are left are freed on drop.
#[derive(Default)]
pub(super) struct EmulatedMemory {
    /// Length by address.
    allocations: BTreeMap<u64, usize>,
    held: u64,
}

impl EmulatedMemory {
    /// Bytes of all allocations.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Memory of exactly `bytes`, filled with 0xff; `None` where the host has run out.
    pub(super) fn alloc(&mut self, bytes: usize) -> Option<DeviceAddress> {
        // SAFETY: the call takes any number.
        let memory = unsafe { concord_emulator_alloc(bytes as u64) };
        if memory.is_null() {
            return None;
        }
        let address = memory as u64;
        self.allocations.insert(address, bytes);
        self.held += bytes as u64;
        Some(DeviceAddress(address))
    }

    pub(super) fn free(&mut self, address: DeviceAddress) -> DriverResult<()> {
        let Some(bytes) = self.allocations.remove(&address.0) else {
            return Err(outside("free", address.0, 0));
        };
        self.held -= bytes as u64;
        // SAFETY: the allocation was made with this length, and is off the list now.
        unsafe { concord_emulator_free(address.0 as *mut c_void, bytes as u64) };
        Ok(())
    }

    /// The allocation that `[address, address + bytes)` lies in.
    fn covers(&self, call: &'static str, at: DeviceAddress, bytes: usize) -> DriverResult<*mut u8> {
        let found = self.allocations.range(..=at.0).next_back();
        let inside = |(&start, &len): (&u64, &usize)| {
            bytes as u64 <= len as u64 && at.0 - start <= (len - bytes) as u64
        };
        match found.is_some_and(inside) {
            true => Ok(at.0 as *mut u8),
            false => Err(outside(call, at.0, bytes)),
        }
    }

    pub(super) fn fill(&mut self, to: DeviceAddress, byte: u8, bytes: usize) -> DriverResult<()> {
        let to = self.covers("fill", to, bytes)?;
        // SAFETY: an allocation that lives covers the range.
        unsafe { to.write_bytes(byte, bytes) };
        Ok(())
    }

    pub(super) fn copy(
        &mut self,
        from: DeviceAddress,
        to: DeviceAddress,
        bytes: usize,
    ) -> DriverResult<()> {
        let from = self.covers("copy", from, bytes)?;
        let to = self.covers("copy", to, bytes)?;
        // SAFETY: allocations that live cover both ranges, which may overlap.
        unsafe { to.copy_from(from, bytes) };
        Ok(())
    }

    pub(super) fn write(&mut self, to: DeviceAddress, host: &[u8]) -> DriverResult<()> {
        let to = self.covers("upload", to, host.len())?;
        // SAFETY: an allocation that lives covers the range; `host` is memory of the caller's.
        unsafe { to.copy_from_nonoverlapping(host.as_ptr(), host.len()) };
        Ok(())
    }

    pub(super) fn read(&self, from: DeviceAddress, host: &mut [u8]) -> DriverResult<()> {
        let from = self.covers("download", from, host.len())?;
        // SAFETY: an allocation that lives covers the range; `host` is memory of the caller's.
        unsafe { from.copy_to_nonoverlapping(host.as_mut_ptr(), host.len()) };
        Ok(())
    }

    /// Runs a kernel on a grid that it allows.
    ///
    /// # Errors
    /// Which thread did what, and where.
    pub(super) fn run(
        &mut self,
        entry: &'static Entry,
        grid: Grid,
        turns: Turns,
        arguments: &[Argument],
    ) -> Result<(), String> {
        if let Some(reason) = entry.refusal(arguments) {
            return Err(reason);
        }
        let pointer = |argument: &Argument| argument.bytes().as_ptr().cast_mut().cast::<c_void>();
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(pointer).collect();
        let (order, seed) = match turns {
            Turns::Forward => (0, 0),
            Turns::Reverse => (1, 0),
            Turns::Shuffled(seed) => (2, seed),
        };
        let launch = Launch {
            kernel: entry,
            arguments: pointers.as_mut_ptr(),
            seed,
            blocks: grid.blocks,
            threads: grid.threads,
            shared: grid.shared,
            order,
        };
        let mut message = [0; 640];
        let mut fault = 0;
        // SAFETY: the arguments are as many and as long as the kernel's; the grid is one that it
        // allows. What the kernel does to memory is caught at the edges of allocations.
        let failed = unsafe {
            let capacity = message.len() as u64;
            concord_emulator_launch(&launch, message.as_mut_ptr(), capacity, &raw mut fault)
        };
        if failed != 0 {
            // SAFETY: the call left a text that ends in a zero byte.
            let said = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy();
            let place = self.place_of(fault);
            return Err(format!("it failed while it ran: {said}{place}"));
        }
        self.check_edges(arguments)
    }

    /// Where a fault is, relative to the live allocations.
    fn place_of(&self, fault: u64) -> String {
        if fault == 0 {
            return String::new();
        }
        let below = self.allocations.range(..=fault).next_back();
        let past = below.map(|(&start, &len)| (fault - start - len as u64, len, "past the end"));
        let above = self.allocations.range(fault..).next();
        let before = above.map(|(&start, &len)| (start - fault, len, "before the start"));
        match past.into_iter().chain(before).min() {
            Some((bytes, len, place)) => {
                format!(" ({bytes} bytes {place} of an allocation of {len} bytes)")
            }
            None => " (there is no allocation)".to_string(),
        }
    }

    /// Refuses writes next to an allocation that an argument points into, in the bytes that no page
    /// guards.
    fn check_edges(&self, arguments: &[Argument]) -> Result<(), String> {
        for (index, argument) in arguments.iter().enumerate() {
            let Ok(bytes) = <[u8; 8]>::try_from(argument.bytes()) else {
                continue;
            };
            let at = u64::from_ne_bytes(bytes);
            let Some((&start, &len)) = self.allocations.range(..=at).next_back() else {
                continue;
            };
            // SAFETY: the allocation lives and has this length.
            let intact = unsafe { concord_emulator_intact(start as *const c_void, len as u64) };
            if at - start <= len as u64 && intact == 0 {
                return Err(format!(
                    "a kernel wrote outside of the allocation of {len} bytes of argument {index}"
                ));
            }
        }
        Ok(())
    }
}

impl Drop for EmulatedMemory {
    fn drop(&mut self) {
        for (&address, &bytes) in &self.allocations {
            // SAFETY: each allocation on the list lives, and nothing uses it after its list.
            unsafe { concord_emulator_free(address as *mut c_void, bytes as u64) };
        }
    }
}

fn outside(call: &'static str, address: u64, bytes: usize) -> CudaError {
    CudaError::Call {
        call,
        reason: format!("no allocation covers {bytes} bytes at {address:#x}"),
    }
}
