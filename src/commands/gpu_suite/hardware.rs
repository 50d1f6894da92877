//! The GPU under test, the CPU with which it is compared, and the header of a report.

use anyhow::{Context, bail};
use concord_kernels::cuda::arch::CodeTarget;
use concord_kernels::cuda::{Cuda, CudaError, images, matmul};
use concord_kernels::{Device, KernelError, Tensor};
use serde::Serialize;
use serde_json::{Value, json};

use super::SuiteSize;
use super::check::Subjects;
use crate::support::gpu::GpuName;

/// Opens the GPU `device`.
///
/// # Errors
/// Where there is no such GPU, or no kernel runs on it.
pub fn open(device: &str) -> anyhow::Result<Cuda> {
    let Some(name) = GpuName::parse(device)? else {
        bail!("--device {device} is no GPU: cuda or cuda:N");
    };
    let cuda = name.open(None)?;
    // The engines are not verified here, because the checks are meant to find wrong products. But
    // a card without kernels cannot be checked at all.
    let device = Device::Cuda(cuda.clone());
    device.sum(&device.place(Tensor::zeros(&[1]))?)?;
    Ok(cuda)
}

/// Opens the GPU `device` a second time, with cuBLASLt; `None` where the machine lacks the library.
/// A library that multiplies wrongly is accepted here, and found by a check.
///
/// # Errors
/// As [`open`].
pub fn open_with_library(device: &str) -> anyhow::Result<Option<Cuda>> {
    let cuda = open(device)?;
    match matmul::offer_library(&cuda) {
        Ok(true) | Err(KernelError::Cuda(CudaError::WrongProducts { .. })) => Ok(Some(cuda)),
        Ok(false) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The CPU of this machine.
///
/// # Errors
/// Where its cores cannot be counted.
pub fn cpu(threads: Option<usize>) -> anyhow::Result<Device> {
    match threads {
        Some(0) => bail!("--threads 0: at least one thread is needed"),
        Some(threads) => Ok(Device::cpu(threads)),
        None => {
            let threads = std::thread::available_parallelism()
                .context("cannot count the cores of this machine: give --threads")?;
            Ok(Device::cpu(threads.get()))
        }
    }
}

/// The hardware, the software and the input of a run.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteHeader {
    /// The name of the GPU.
    pub name: String,
    /// Compute capability, such as "9.0".
    pub compute: String,
    /// The architecture whose kernels it runs, such as "sm_90".
    pub arch: String,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// The CUDA version of the driver.
    pub driver: String,
    /// Bytes of its memory; `None` where they are unknown.
    pub memory_bytes: Option<u64>,
    /// Where its kernels come from.
    pub kernels: String,
    /// Whether cuBLASLt is there and supports products of bytes.
    pub has_cublaslt: bool,
    /// The CPU with which it is compared.
    pub cpu: String,
    /// Version of Concord.
    pub version: &'static str,
    /// The commit from which it was built, where the build knows it.
    pub commit: Option<&'static str>,
    /// Seed of the random input.
    pub seed: u64,
    /// How much was checked and timed.
    pub size: &'static str,
}

impl SuiteHeader {
    /// The header of a run.
    pub fn of(subjects: &Subjects, seed: u64, size: SuiteSize) -> Self {
        let gpu = subjects.cuda.properties();
        let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        Self {
            name: gpu.name.clone(),
            compute: version(gpu.compute),
            arch: gpu.arch.to_string(),
            multiprocessors: gpu.multiprocessors,
            driver: version(gpu.driver_version),
            memory_bytes: subjects.cuda.memory().device.map(|memory| memory.total),
            kernels: kernels(gpu.compute),
            has_cublaslt: subjects.with_library.is_some(),
            cpu: subjects.cpu.name(),
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("CONCORD_COMMIT"),
            seed,
            size: size.name(),
        }
    }

    /// As text.
    pub fn text(&self) -> String {
        let memory = match self.memory_bytes {
            Some(bytes) => format!("{} MiB", bytes >> 20),
            None => "memory of unknown size".to_string(),
        };
        format!(
            "{}: compute capability {}, {} multiprocessors, {memory}, driver of CUDA {}\n\
             kernels {}; {} cuBLASLt; against {}; concord {}{}; size {}, seed {}",
            self.name,
            self.compute,
            self.multiprocessors,
            self.driver,
            self.kernels,
            if self.has_cublaslt { "with" } else { "no" },
            self.cpu,
            self.version,
            self.commit
                .map_or(String::new(), |commit| format!(" of {commit}")),
            self.size,
            self.seed,
        )
    }

    /// As a JSON object.
    pub fn object(&self) -> Value {
        json!({ "event": "gpu", "gpu": self })
    }
}

/// Where the machine code for a card comes from.
fn kernels(compute: (u32, u32)) -> String {
    let Some(target) = CodeTarget::of_card(compute).map(CodeTarget::name) else {
        return "for no such card".to_string();
    };
    let carries = images::resources()
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(&target));
    match images::nvrtc_version() {
        Some((major, minor)) if carries => {
            format!("for {target} carried along, by NVRTC {major}.{minor}")
        }
        _ => format!("for {target} compiled here or kept on disk"),
    }
}
