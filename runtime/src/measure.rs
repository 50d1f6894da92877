//! What a worker says of itself to the planner: how fast it is, how much memory it may use.

use std::time::{Duration, Instant};

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_kernels::rng::Philox;
use concord_proto::session::DeviceInfo;

/// Side of the product that is timed: large enough to be bound by arithmetic.
const SIDE: usize = 384;
/// The product is repeated for so long, and the fastest run counts.
const BUDGET: Duration = Duration::from_millis(60);

/// Measures `device`.
pub fn device_info(device: &Device, memory_bytes: u64) -> DeviceInfo {
    DeviceInfo {
        name: device.name(),
        macs_per_second: macs_per_second(device),
        memory_bytes,
    }
}

fn macs_per_second(device: &Device) -> u64 {
    let stream = Philox::new(0, 0);
    let values: Vec<f32> = (0..(SIDE * SIDE) as u64)
        .map(|i| stream.unit(i) - 0.5)
        .collect();
    let side = if matches!(device, Device::Reference) {
        SIDE / 8
    } else {
        SIDE
    };
    let coded = device.code(&values[..side * side], side, Precision::I16);
    let start = Instant::now();
    let mut best = Duration::MAX;
    while start.elapsed() < BUDGET {
        let run = Instant::now();
        std::hint::black_box(device.matmul(&coded, &coded));
        best = best.min(run.elapsed());
    }
    let macs = (side * side * side) as f64;
    (macs / best.as_secs_f64()) as u64
}

/// Memory that this machine has, where the operating system tells; else 4 GiB.
pub fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.map_or(4 << 30, |kib| kib << 10)
}
