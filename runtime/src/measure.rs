//! What a worker says of itself to the planner: how fast it is, how much memory it may use.

use std::time::{Duration, Instant};

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::CudaError;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, KernelError, Tensor};
use concord_proto::session::DeviceInfo;

/// Side of the product that is timed: large enough to be bound by arithmetic.
const SIDE: usize = 384;
/// Side of the first product that is timed on a GPU; larger ones follow while they are quick.
const GPU_SIDE_MIN: usize = 64;
/// Side of the largest product that is timed on a GPU.
const GPU_SIDE_MAX: usize = 4_096;
/// A product that takes this long is large enough.
const LONG: Duration = Duration::from_millis(2);
/// The product is repeated for so long, and the fastest run counts.
const BUDGET: Duration = Duration::from_millis(60);

/// Measures `device`.
///
/// # Errors
/// [`KernelError::Cuda`] where a GPU fails.
pub fn device_info(device: &Device, memory_bytes: u64) -> Result<DeviceInfo, KernelError> {
    let product = match device {
        Device::Reference => Product::new(device, SIDE / 8)?,
        Device::Cpu(_) => Product::new(device, SIDE)?,
        Device::Cuda(_) => Product::large_enough(device)?,
    };
    let start = Instant::now();
    let mut best = Duration::MAX;
    while start.elapsed() < BUDGET {
        best = best.min(product.time()?);
    }
    let macs_per_second = (product.macs() / best.as_secs_f64()) as u64;
    drop(product);
    if let Device::Cuda(gpu) = device {
        // The memory of the measurement is not needed again.
        gpu.trim()?;
    }
    Ok(DeviceInfo {
        name: device_name(device),
        macs_per_second,
        memory_bytes,
    })
}

/// What the coordinator calls a device: of a GPU the card and whose kernels it runs, such as
/// "NVIDIA H200 sm_90".
pub fn device_name(device: &Device) -> String {
    let name = device.name();
    match device {
        Device::Cuda(gpu) if !name.contains(&gpu.arch().to_string()) => {
            format!("{name} {}", gpu.arch())
        }
        _ => name,
    }
}

/// The product of a square matrix with itself.
struct Product<'a> {
    device: &'a Device,
    coded: Coded,
}

impl<'a> Product<'a> {
    fn new(device: &'a Device, side: usize) -> Result<Self, KernelError> {
        let stream = Philox::new(0, 0);
        let value = |i| stream.unit(i) - 0.5;
        let values: Vec<f32> = (0..(side * side) as u64).map(value).collect();
        let square = device.place(Tensor::new(&[side, side], values)?)?;
        Ok(Self {
            device,
            coded: device.code(&square, side, Precision::I16)?,
        })
    }

    /// The smallest product that keeps a GPU busy: its size is not known beforehand.
    fn large_enough(device: &'a Device) -> Result<Self, KernelError> {
        let mut side = GPU_SIDE_MIN;
        let (mut product, mut time) = Self::timed(device, side)?;
        while side < GPU_SIDE_MAX && time < LONG {
            side *= 2;
            (product, time) = match Self::timed(device, side) {
                // A worker with little memory is measured at what it holds.
                Err(KernelError::Cuda(CudaError::OutOfMemory { .. })) => break,
                larger => larger?,
            };
        }
        Ok(product)
    }

    fn timed(device: &'a Device, side: usize) -> Result<(Self, Duration), KernelError> {
        let product = Self::new(device, side)?;
        // Kernels are loaded when they are first called.
        product.time()?;
        let time = product.time()?;
        Ok((product, time))
    }

    fn time(&self) -> Result<Duration, KernelError> {
        let start = Instant::now();
        std::hint::black_box(self.device.matmul(&self.coded, &self.coded)?);
        if let Device::Cuda(gpu) = self.device {
            gpu.synchronise()?;
        }
        Ok(start.elapsed())
    }

    /// Multiply-adds.
    fn macs(&self) -> f64 {
        (self.coded.rows as f64).powi(3)
    }
}

/// Memory that work on `device` may use, as far as is known: what a GPU has free and its limit
/// allows, or what this machine has available.
pub fn device_memory(device: &Device) -> u64 {
    let Device::Cuda(gpu) = device else {
        return machine_memory();
    };
    let report = gpu.memory();
    let own = report.in_use() + report.cached;
    let free = report.device.map_or(report.limit, |card| card.free + own);
    free.min(report.limit)
}

/// Memory that this machine has available, in bytes, where the operating system tells; else 4 GiB.
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
