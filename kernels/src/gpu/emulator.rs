//! A GPU that is emulated on the CPU: the kernels of `kernels/cuda/*.cu`, compiled for the host.
//!
//! It gives the bits of a GPU and finds what a GPU would let pass: an access out of range, a
//! barrier that some threads miss, lanes that disagree, a result that depends on the order of
//! threads or blocks. It is for tests, and slow.

mod library;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Cuda;
use super::arch::Arch;
use super::driver::{DeviceAddress, Driver, DriverResult, Properties, TimeMark};
use super::error::CudaError;
use super::launch::{Argument, Grid, Kernel};
use super::memory::DeviceMemory;
use library::{EmulatedMemory, EmulatorLibrary};

/// The order in which the threads of a block, and the blocks of a grid, take turns. A kernel
/// without a race gives the same bits in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// In the order of their numbers.
    Forward,
    /// The last first.
    Reverse,
    /// An order of its own for each launch, drawn from a seed.
    Shuffled(u64),
}

/// Which GPU to emulate.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorOptions {
    /// The architecture whose kernels it runs.
    pub arch: Arch,
    /// The most bytes that can be allocated at once.
    pub memory_bytes: u64,
    /// Which thread and block goes first.
    pub turns: Turns,
    /// The number of launches after which it is lost.
    pub lost_after: Option<u64>,
    /// How many multiprocessors it reports: the sizes of grids depend on it.
    pub multiprocessors: u32,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            arch: Arch(80),
            memory_bytes: 8 << 30,
            turns: Turns::Forward,
            lost_after: None,
            multiprocessors: 4,
        }
    }
}

/// A launch that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Which kernel.
    pub kernel: Kernel,
    /// On what grid, with how much shared memory.
    pub grid: Grid,
}

/// What a test sees of an emulated GPU, and does to it.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    launches: Mutex<Vec<Launched>>,
    fetched: Mutex<Vec<usize>>,
    lost: AtomicBool,
}

impl Watch {
    /// The bytes of each copy to the host since the last call, in order.
    pub fn fetched(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.0.fetched))
    }

    /// The launches since the last call, in order.
    pub fn launches(&self) -> Vec<Launched> {
        std::mem::take(&mut *lock(&self.0.launches))
    }

    /// Loses the GPU: every later call fails.
    pub fn lose(&self) {
        self.0.lost.store(true, Ordering::SeqCst);
    }
}

impl Cuda {
    /// An emulated GPU.
    pub fn emulated(options: EmulatorOptions) -> Self {
        Self::over(Emulator::new(options, None), options.memory_bytes)
    }

    /// An emulated GPU that records its launches, and can be lost at any time.
    pub fn emulated_with_watch(options: EmulatorOptions) -> (Self, Watch) {
        let watch = Watch(Arc::new(Watched {
            launches: Mutex::new(Vec::new()),
            fetched: Mutex::new(Vec::new()),
            lost: AtomicBool::new(false),
        }));
        let emulator = Emulator::new(options, Some(watch.clone()));
        (Self::over(emulator, options.memory_bytes), watch)
    }
}

/// The emulated driver: every call is done when it returns.
struct Emulator {
    properties: Properties,
    options: EmulatorOptions,
    library: EmulatorLibrary,
    watch: Option<Watch>,
    opened: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: EmulatedMemory,
    launches: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state behind these locks is consistent at every point that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of shared memory that a block may ask for, as the tables of the CUDA C++ guide have them.
const fn shared_memory_max(arch: Arch) -> u32 {
    let kib = match arch.0 {
        0..70 => 48,
        70..75 => 96,
        75..80 => 64,
        80 => 163,
        90..120 => 227,
        _ => 99,
    };
    kib << 10
}

impl Emulator {
    fn new(options: EmulatorOptions, watch: Option<Watch>) -> Self {
        let arch = options.arch;
        Self {
            properties: Properties {
                name: format!("emulated {arch}"),
                compute: (arch.0 / 10, arch.0 % 10),
                arch,
                multiprocessors: options.multiprocessors,
                shared_memory_max: shared_memory_max(arch),
                driver_version: (12, 0),
            },
            options,
            library: EmulatorLibrary::of(arch),
            watch,
            opened: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// The state of a GPU that is not lost.
    fn state(&self) -> DriverResult<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        let spent = self
            .options
            .lost_after
            .is_some_and(|launches| state.launches >= launches);
        let taken = self
            .watch
            .as_ref()
            .is_some_and(|watch| watch.0.lost.load(Ordering::SeqCst));
        if spent || taken {
            let cause = "the emulated GPU was told to be lost".to_string();
            return Err(CudaError::Lost { cause });
        }
        Ok(state)
    }

    /// Why the kernel cannot be launched like this, if it cannot.
    fn refusal(&self, threads_max: u32, grid: Grid) -> Option<String> {
        let [x, y, z] = grid.blocks;
        let shared_max = self.properties.shared_memory_max;
        if x == 0 || y == 0 || z == 0 || grid.threads == 0 {
            Some(format!(
                "a grid of {x} x {y} x {z} blocks of {} threads is empty",
                grid.threads
            ))
        } else if x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
            Some(format!(
                "{x} x {y} x {z} blocks are more than 2^31 - 1 x 65,535 x 65,535"
            ))
        } else if grid.threads > threads_max {
            Some(format!(
                "{} threads a block, of at most {threads_max}",
                grid.threads
            ))
        } else if grid.shared > shared_max {
            Some(format!(
                "{} bytes of shared memory, of at most {shared_max}",
                grid.shared
            ))
        } else {
            None
        }
    }
}

impl Driver for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Every allocation has its exact size and freed memory is unmapped at once, so that every
    /// access outside of live memory is found.
    fn is_pooled(&self) -> bool {
        false
    }

    fn memory(&self) -> DriverResult<DeviceMemory> {
        let total = self.options.memory_bytes;
        let free = total.saturating_sub(self.state()?.memory.held());
        Ok(DeviceMemory { free, total })
    }

    fn alloc(&self, bytes: usize) -> DriverResult<Option<DeviceAddress>> {
        let mut state = self.state()?;
        let room = self
            .options
            .memory_bytes
            .saturating_sub(state.memory.held());
        if bytes as u64 > room {
            return Ok(None);
        }
        Ok(state.memory.alloc(bytes))
    }

    fn free(&self, address: DeviceAddress) -> DriverResult<()> {
        // Even on a lost GPU: the memory is the host's.
        lock(&self.state).memory.free(address)
    }

    fn fill(&self, to: DeviceAddress, byte: u8, bytes: usize) -> DriverResult<()> {
        self.state()?.memory.fill(to, byte, bytes)
    }

    fn copy(&self, from: DeviceAddress, to: DeviceAddress, bytes: usize) -> DriverResult<()> {
        self.state()?.memory.copy(from, to, bytes)
    }

    fn upload(&self, host: &[u8], to: DeviceAddress) -> DriverResult<()> {
        self.state()?.memory.write(to, host)
    }

    fn download(&self, from: DeviceAddress, host: &mut [u8]) -> DriverResult<()> {
        if let Some(watch) = &self.watch {
            lock(&watch.0.fetched).push(host.len());
        }
        self.state()?.memory.read(from, host)
    }

    fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument]) -> DriverResult<()> {
        let mut state = self.state()?;
        let refused = |reason: String| CudaError::Launch {
            module: kernel.module,
            name: kernel.name,
            reason,
        };
        let Some(entry) = self.library.find(kernel) else {
            return Err(refused("the build has no such kernel".to_string()));
        };
        if let Some(reason) = self.refusal(entry.threads_max(), grid) {
            return Err(refused(reason));
        }
        state.launches += 1;
        if let Some(watch) = &self.watch {
            lock(&watch.0.launches).push(Launched { kernel, grid });
        }
        let turns = match self.options.turns {
            Turns::Shuffled(seed) => Turns::Shuffled(seed.wrapping_add(state.launches)),
            turns => turns,
        };
        let ran = state.memory.run(entry, grid, turns, arguments);
        ran.map_err(refused)
    }

    fn synchronise(&self) -> DriverResult<()> {
        self.state().map(drop)
    }

    fn event(&self) -> DriverResult<TimeMark> {
        drop(self.state()?);
        Ok(TimeMark(self.opened.elapsed().as_nanos() as u64))
    }

    fn elapsed(&self, start: TimeMark, end: TimeMark) -> DriverResult<Duration> {
        drop(self.state()?);
        Ok(Duration::from_nanos(end.0.saturating_sub(start.0)))
    }
}
