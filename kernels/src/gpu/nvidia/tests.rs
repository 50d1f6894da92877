//! The calls to the driver, tested against the lazy driver of `tests/driver/cuda.c`.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use tempfile::TempDir;

use super::Nvidia;
use crate::gpu::arch::CodeTarget;
use crate::gpu::cache::Cache;
use crate::gpu::{Arch, Cuda, CudaError, Grid, Kernel, Slice, arguments, images};

const SCALED: Kernel = Kernel {
    module: "elementwise",
    name: "scaled",
};

/// As the driver for tests has it.
#[derive(Clone, Debug, PartialEq)]
#[repr(C)]
struct Settings {
    version: i32,
    init: i32,
    count: i32,
    major: i32,
    minor: i32,
    lost_after: i32,
    memory: u64,
    live: i32,
    contexts: i32,
    launches: i32,
    blocks: [u32; 3],
    threads: u32,
    shared: u32,
    dynamic_shared_max: i32,
    flushes: i32,
}

const USUAL: Settings = Settings {
    version: 12_000,
    init: 0,
    count: 1,
    major: 8,
    minor: 0,
    lost_after: -1,
    memory: 256 << 20,
    live: 0,
    contexts: 0,
    launches: 0,
    blocks: [0; 3],
    threads: 0,
    shared: 0,
    dynamic_shared_max: 0,
    flushes: 0,
};

/// The driver for tests, which one test at a time may use.
struct Lazy {
    library: &'static Library,
    folder: TempDir,
    _one_at_a_time: MutexGuard<'static, ()>,
}

/// None where there is no C compiler, or where a real driver has been loaded before it.
fn lazy(settings: &Settings) -> Option<Lazy> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(library) = LIBRARY.get_or_init(library) else {
        println!("skipped: no C compiler makes a driver for tests");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder for the test");
    let lazy = Lazy {
        library,
        folder,
        _one_at_a_time: guard,
    };
    lazy.set(settings);
    Some(lazy)
}

/// Loads it under the name of the real one, which a later search for that name then finds.
fn library() -> Option<Library> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("libcuda.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/cuda.c");
    let compiled = Command::new("cc")
        .args(["-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so", "-o"])
        .args([&file, &source])
        .status()
        .ok()?;
    assert!(compiled.success(), "{} does not compile", source.display());
    // SAFETY: it has no initialisers.
    Some(unsafe { Library::new(&file) }.expect("the driver for tests can be loaded"))
}

impl Lazy {
    fn settings(&self) -> *mut Settings {
        // SAFETY: the symbol is of this type; only the address is taken.
        *unsafe { self.library.get::<*mut Settings>(b"fake_settings\0") }.expect("it has settings")
    }

    fn set(&self, settings: &Settings) {
        // SAFETY: the settings are of this type, and only the test that has the lock touches them.
        unsafe {
            *self.settings() = settings.clone();
            let reset = self.library.get::<extern "C" fn()>(b"fake_reset\0");
            reset.expect("it can be reset")();
        }
    }

    fn now(&self) -> Settings {
        // SAFETY: as above.
        unsafe { (*self.settings()).clone() }
    }

    fn open(&self, index: usize) -> Result<Cuda, CudaError> {
        let cache = Cache::at(self.folder.path());
        let target = CodeTarget::of_card((8, 0)).expect("the card of the tests has kernels");
        for source in images::sources() {
            cache.write(source, target, b"machine code");
        }
        Ok(Cuda::over(Nvidia::open(index, cache)?, 1 << 30))
    }

    fn refusal(&self, index: usize, settings: &Settings) -> String {
        self.set(settings);
        let error = self.open(index).expect_err("the card is refused");
        error.to_string()
    }
}

fn scale(cuda: &Cuda, x: &Slice<f32>, factor: f32) -> Result<Slice<f32>, CudaError> {
    let y = cuda.alloc::<f32>(x.len())?;
    let grid = Grid::new(3, 256).y(2).shared(4_096);
    cuda.start(SCALED, grid, arguments![x, &y, factor, x.len() as u64])?;
    Ok(y)
}

#[test]
fn what_cannot_be_used_is_named_with_the_remedy() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let with = |change: fn(&mut Settings)| {
        let mut settings = USUAL;
        change(&mut settings);
        settings
    };
    let cases = [
        (
            0,
            with(|s| s.version = 11_040),
            "speaks CUDA 11.4 and 12.0 is needed: install driver 525",
        ),
        (
            0,
            with(|s| s.init = 999),
            "does not start: CUDA_ERROR_FOR_TESTS, error 999",
        ),
        (
            0,
            with(|s| s.init = 100),
            "no device cuda:0: the driver shows 0 cards",
        ),
        (
            3,
            with(|s| s.count = 2),
            "no device cuda:3: the driver shows 2 cards",
        ),
        (
            0,
            with(|s| (s.major, s.minor) = (6, 0)),
            "a card for tests has compute capability 6.0",
        ),
    ];
    for (index, settings, expected) in cases {
        let text = lazy.refusal(index, &settings);
        assert!(text.contains(expected), "{text}: lacks {expected}");
        assert_eq!(lazy.now().live, 0, "{expected}");
        assert_eq!(lazy.now().contexts, 0, "{expected}");
    }
}

#[test]
fn a_card_tells_what_it_is() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let properties = cuda.properties();
    assert_eq!(properties.name, "a card for tests");
    assert_eq!((properties.compute, properties.arch), ((8, 0), Arch(80)));
    assert_eq!(
        (properties.multiprocessors, properties.shared_memory_max),
        (7, 101_376)
    );
    assert_eq!(properties.driver_version, (12, 0));
    let device = cuda.memory().device.expect("the card says what it has");
    assert_eq!((device.free, device.total), (256 << 20, 256 << 20));
}

#[test]
fn bytes_arrive_as_they_left_and_nobody_waits_for_an_upload() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let mebibyte = 1_usize << 20;
    for len in [
        0,
        1,
        5,
        4 * mebibyte - 1,
        4 * mebibyte,
        4 * mebibyte + 1,
        50 * mebibyte + 3,
    ] {
        let host: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let there = cuda.upload(&host).expect("the card answers");
        assert!(
            cuda.download(&there).expect("the card answers") == host,
            "{len} bytes"
        );
    }
    // Thousands of small uploads fit the ring; their bytes are read from it late.
    let before = lazy.now().flushes;
    let ids = |n: u32| (0..100).map(|i| n * 1_000 + i).collect::<Vec<u32>>();
    let there: Vec<Slice<u32>> = (0..5_000)
        .map(|n| cuda.upload(&ids(n)).expect("the card answers"))
        .collect();
    assert_eq!(lazy.now().flushes, before, "an upload waited");
    for (n, slice) in there.iter().enumerate().rev() {
        assert_eq!(
            cuda.download(slice).expect("the card answers"),
            ids(n as u32)
        );
    }
}

#[test]
fn work_is_done_in_the_order_of_the_calls() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let mut x = cuda
        .upload(&[1.0_f32, -2.0, 3.5])
        .expect("the card answers");
    for _ in 0..20 {
        // The memory dropped here is given out again by the next call, before the work on it is
        // done.
        x = scale(&cuda, &x, 2.0).expect("the kernel starts");
    }
    let zeros = cuda.zeros::<f32>(3).expect("the card answers");
    let shared = x.clone();
    cuda.unique(&mut x).expect("the card answers");
    cuda.copy(&zeros, &x).expect("the card answers");
    let two = 1_048_576.0;
    assert_eq!(
        cuda.download(&shared).expect("the card answers"),
        [two, -2.0 * two, 3.5 * two]
    );
    assert_eq!(cuda.download(&x).expect("the card answers"), [0.0; 3]);
    let now = lazy.now();
    assert_eq!(
        (now.blocks, now.threads, now.shared, now.launches),
        ([3, 2, 1], 256, 4_096, 20)
    );
    assert_eq!(
        now.dynamic_shared_max,
        101_376 - 1_024,
        "all but what the kernel itself declares"
    );
    let (_, time) = cuda
        .timed(|| Ok(scale(&cuda, &shared, 1.0)?))
        .expect("the card answers");
    assert_eq!(
        time.as_millis(),
        1,
        "the driver for tests says a millisecond a call"
    );
}

#[test]
fn a_launch_that_is_none_is_named() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let x = cuda.zeros::<f32>(1).expect("the card answers");
    let launch = |kernel: Kernel, grid: Grid| {
        let launched = cuda.start(kernel, grid, arguments![&x, &x, 1.0_f32, 1_u64]);
        launched.expect_err("it cannot be launched").to_string()
    };
    let absent = Kernel {
        name: "scalde",
        ..SCALED
    };
    let text = launch(absent, Grid::new(1, 256));
    assert!(
        text.contains("elementwise::scalde cannot be launched: its file has no"),
        "{text}"
    );
    let text = launch(SCALED, Grid::new(1, 256).shared(101_376));
    assert!(
        text.contains("elementwise::scaled cannot be launched") && text.contains("101376"),
        "{text}"
    );
    let absent = Kernel {
        module: "elementary",
        ..SCALED
    };
    let text = launch(absent, Grid::new(1, 256));
    assert!(text.contains("no such file of kernels"), "{text}");
    // The card is as it was.
    scale(&cuda, &x, 1.0).expect("the kernel starts");
}

#[test]
fn a_lost_card_stays_lost_and_says_why() {
    let lost = Settings {
        lost_after: 2,
        ..USUAL
    };
    let Some(lazy) = lazy(&lost) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let x = cuda.upload(&[1.0_f32]).expect("the card answers");
    for _ in 0..3 {
        // The third breaks down later: a launch does not wait for its kernel.
        scale(&cuda, &x, 1.0).expect("the kernel starts");
    }
    let is_lost = |error: CudaError| {
        let text = error.to_string();
        assert!(matches!(error, CudaError::Lost { .. }), "{text}");
        assert!(
            text.contains("CUDA_ERROR_ILLEGAL_ADDRESS, error 700"),
            "{text}"
        );
        assert!(text.contains("noticed by cuEventSynchronize"), "{text}");
    };
    is_lost(cuda.download(&x).expect_err("the card is lost"));
    is_lost(scale(&cuda, &x, 1.0).expect_err("the card is lost"));
    is_lost(cuda.upload(&[1.0_f32]).expect_err("the card is lost"));
    is_lost(cuda.synchronise().expect_err("the card is lost"));
    assert_eq!(cuda.memory().device, None);
    drop((x, cuda));
    assert_eq!(lazy.now().contexts, 0);
}

#[test]
fn all_is_given_back() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let (a, b) = (
        lazy.open(0).expect("it opens"),
        lazy.open(0).expect("it opens twice"),
    );
    for cuda in [&a, &b] {
        let x = cuda
            .upload(&vec![1.0_f32; 3 << 20])
            .expect("the card answers");
        let y = scale(cuda, &x, 2.0).expect("the kernel starts");
        assert_eq!(
            cuda.download(&y).expect("the card answers")[..2],
            [2.0, 2.0]
        );
        cuda.timed(|| Ok(scale(cuda, &x, 1.0)?))
            .expect("the card answers");
    }
    assert_eq!(lazy.now().contexts, 2);
    let slice = a.zeros::<u64>(9).expect("the card answers");
    drop((a, b));
    assert_eq!(lazy.now().contexts, 1, "a slice holds its card");
    drop(slice);
    assert_eq!((lazy.now().live, lazy.now().contexts), (0, 0));
}

#[test]
fn the_cards_own_limit_is_out_of_memory() {
    let Some(lazy) = lazy(&USUAL) else { return };
    let cuda = lazy.open(0).expect("the card opens");
    let error = cuda.alloc::<f32>(80 << 20).expect_err("the card has less");
    let text = error.to_string();
    assert!(
        text.contains("no 335544320 bytes left for workspace"),
        "{text}"
    );
    assert!(text.contains("256 MiB free of 256 MiB"), "{text}");
}
