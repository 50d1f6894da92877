//! The pool over a card that counts what it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::gpu::DeviceMemory;
use crate::gpu::driver::{Properties, TimeMark};
use crate::gpu::{Arch, Argument, Grid, Kernel, Slice};

const CARD_BYTES: u64 = 1 << 20;

/// Counts what it is asked for, and has [`CARD_BYTES`] of memory that nobody touches.
#[derive(Default)]
struct Counts {
    allocations: AtomicU64,
    held: Mutex<BTreeMap<u64, usize>>,
    copied: AtomicU64,
    lost: AtomicBool,
}

struct Counting(Arc<Counts>, Properties);

impl Driver for Counting {
    fn properties(&self) -> &Properties {
        &self.1
    }
    fn memory(&self) -> DriverResult<DeviceMemory> {
        let held = self.0.held.lock().unwrap();
        let held: u64 = held.values().map(|&bytes| bytes as u64).sum();
        Ok(DeviceMemory {
            free: CARD_BYTES - held,
            total: CARD_BYTES,
        })
    }
    fn alloc(&self, bytes: usize) -> DriverResult<Option<DeviceAddress>> {
        if self.0.lost.load(Ordering::Relaxed) {
            let cause = "a test".to_string();
            return Err(CudaError::Lost { cause });
        }
        if self.memory()?.free < bytes as u64 {
            return Ok(None);
        }
        let number = self.0.allocations.fetch_add(1, Ordering::Relaxed) + 1;
        let address = number << 32;
        self.0.held.lock().unwrap().insert(address, bytes);
        Ok(Some(DeviceAddress(address)))
    }
    fn free(&self, address: DeviceAddress) -> DriverResult<()> {
        let freed = self.0.held.lock().unwrap().remove(&address.0);
        freed.expect("what is freed was allocated");
        Ok(())
    }
    fn fill(&self, _: DeviceAddress, _: u8, _: usize) -> DriverResult<()> {
        Ok(())
    }
    fn copy(&self, _: DeviceAddress, _: DeviceAddress, bytes: usize) -> DriverResult<()> {
        self.0.copied.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
    fn upload(&self, _: &[u8], _: DeviceAddress) -> DriverResult<()> {
        Ok(())
    }
    fn download(&self, _: DeviceAddress, _: &mut [u8]) -> DriverResult<()> {
        Ok(())
    }
    fn launch(&self, _: Kernel, _: Grid, _: &[Argument]) -> DriverResult<()> {
        Ok(())
    }
    fn synchronise(&self) -> DriverResult<()> {
        Ok(())
    }
    fn event(&self) -> DriverResult<TimeMark> {
        Ok(TimeMark(0))
    }
    fn elapsed(&self, _: TimeMark, _: TimeMark) -> DriverResult<Duration> {
        Ok(Duration::ZERO)
    }
}

fn card(limit: u64) -> (Cuda, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let properties = Properties {
        name: "a card for tests".to_string(),
        compute: (8, 0),
        arch: Arch(80),
        multiprocessors: 1,
        shared_memory_max: 1 << 16,
        driver_version: (12, 0),
    };
    let driver = Counting(Arc::clone(&counts), properties);
    (Cuda::over(driver, limit), counts)
}

fn bytes(cuda: &Cuda, bytes: usize) -> Slice<u8> {
    cuda.alloc(bytes).expect("the card has room")
}

#[test]
fn sizes_waste_at_most_an_eighth_and_are_their_own_class() {
    for bytes in (1..70_000).chain([1 << 20, (1 << 20) + 1, 3_000_000_001]) {
        let size = size_class(bytes);
        let most = (bytes + bytes / 8 + 1).max(bytes + 255);
        assert!(size >= bytes && size <= most, "{bytes}: {size}");
        assert_eq!(size % 256, 0, "{bytes}: {size}");
        assert_eq!(size_class(size), size, "{bytes}: {size}");
    }
}

#[test]
fn a_dropped_block_is_the_next_one_of_its_size() {
    let (cuda, counts) = card(CARD_BYTES);
    for _ in 0..100 {
        let (a, b) = (bytes(&cuda, 10_000), bytes(&cuda, 10_001));
        assert_ne!(a.address(), b.address());
    }
    assert_eq!(counts.allocations.load(Ordering::Relaxed), 2);
    assert_eq!(cuda.memory().in_use(), 0);
    cuda.trim().expect("the card answers");
    assert!(counts.held.lock().unwrap().is_empty());
    assert_eq!(cuda.memory().cached, 0);
}

#[test]
fn memory_goes_back_with_the_last_that_shares_it() {
    let (cuda, counts) = card(CARD_BYTES);
    let mut whole = cuda.alloc::<f32>(1_024).expect("the card has room");
    let part = whole.part(256, 512);
    assert_eq!(part.address().0, whole.address().0 + 1_024);
    drop(whole.clone());
    assert_eq!(cuda.memory().in_use(), 4_096);
    cuda.unique(&mut whole).expect("the card has room");
    assert_eq!(counts.copied.load(Ordering::Relaxed), 4_096);
    assert_eq!(cuda.memory().in_use(), 8_192);
    drop(part);
    assert_eq!(cuda.memory().in_use(), 4_096);
    cuda.unique(&mut whole).expect("the card has room");
    assert_eq!(
        counts.copied.load(Ordering::Relaxed),
        4_096,
        "nobody shares it"
    );
    drop(whole);
    assert_eq!(cuda.memory().in_use(), 0);
}

#[test]
fn what_is_kept_goes_back_before_memory_runs_out() {
    let (cuda, counts) = card(CARD_BYTES);
    let small: Vec<_> = (0..200).map(|_| bytes(&cuda, 4_096)).collect();
    drop(small);
    assert_eq!(cuda.memory().cached, 200 * 4_096);
    let large = bytes(&cuda, CARD_BYTES as usize);
    assert_eq!(counts.held.lock().unwrap().len(), 1);
    assert_eq!(cuda.memory().cached, 0);
    drop(large);
    assert_eq!(cuda.memory().peak, CARD_BYTES);
}

#[test]
fn out_of_memory_names_what_is_held_and_the_remedy() {
    for (limit, asked) in [(CARD_BYTES, 1 << 20), (600_000, 300_000)] {
        let (cuda, _) = card(limit);
        let weights = {
            let _weights = cuda.account(MemoryPurpose::Weights);
            bytes(&cuda, 400_000)
        };
        let workspace = bytes(&cuda, 1_000);
        let _keys = cuda.account(MemoryPurpose::KeyValues);
        let error = cuda.alloc::<u8>(asked).expect_err("there is no room");
        let CudaError::OutOfMemory {
            purpose, report, ..
        } = &error
        else {
            panic!("another error: {error}");
        };
        assert_eq!(*purpose, MemoryPurpose::KeyValues);
        assert_eq!(report.limit, limit);
        assert_eq!(report.held[MemoryPurpose::Weights as usize], weights_size());
        let text = error.to_string();
        for part in [
            &format!("no {asked} bytes left for keys and values"),
            "1 MiB in use (weights 1 MiB, workspace 1 MiB)",
            "MiB free of 1 MiB",
            "raise the memory limit",
        ] {
            assert!(text.contains(part), "{text}: lacks {part}");
        }
        drop((weights, workspace));
        cuda.alloc::<u8>(asked).expect("there is room again");
    }
}

fn weights_size() -> u64 {
    size_class(400_000) as u64
}

#[test]
fn accounts_nest_and_are_their_threads() {
    let (cuda, _) = card(CARD_BYTES);
    let held = |purpose: MemoryPurpose| cuda.memory().held[purpose as usize];
    let outer = cuda.account(MemoryPurpose::Gradients);
    let a = bytes(&cuda, 256);
    let inner = cuda.account(MemoryPurpose::Optimizer);
    let b = bytes(&cuda, 512);
    drop(inner);
    let c = bytes(&cuda, 768);
    let elsewhere = std::thread::scope(|scope| {
        let other = scope.spawn(|| bytes(&cuda, 1_024));
        other.join().expect("the thread ends well")
    });
    drop(outer);
    let d = bytes(&cuda, 1_280);
    assert_eq!(held(MemoryPurpose::Gradients), 256 + 768);
    assert_eq!(held(MemoryPurpose::Optimizer), 512);
    assert_eq!(held(MemoryPurpose::Workspace), 1_024 + 1_280);
    // What is dropped is taken off the account that it was put on.
    drop((a, b, c, elsewhere, d));
    assert_eq!(cuda.memory().held, [0; MemoryPurpose::ALL.len()]);
}

#[test]
fn a_lost_card_says_so() {
    let (cuda, counts) = card(CARD_BYTES);
    counts.lost.store(true, Ordering::Relaxed);
    let error = cuda.alloc::<u8>(1).expect_err("the card is lost");
    assert!(
        error.to_string().contains("the GPU is lost (a test)"),
        "{error}"
    );
}
