//! Options that choose where a process computes.

use anyhow::{Context, bail};
use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_runtime::measure;

use crate::support::gpu::{self, GpuName};

/// Where to compute. None of it changes a bit of any result.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// "cpu" (SIMD and threads), "cuda" or "cuda:N" (an NVIDIA GPU), "auto" (the first GPU that can
    /// be used, else the CPU) or "reference" (scalar code, slow, for disputes).
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Threads of the CPU; all cores by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set of the CPU: portable, avx2 or avx512; the best of this machine by default.
    #[arg(long, value_name = "ISA")]
    pub isa: Option<Isa>,
}

impl DeviceArgs {
    /// Whether options ask for another device than the default.
    pub fn is_given(&self) -> bool {
        self.device != "cpu" || self.threads.is_some() || self.isa.is_some()
    }

    /// The device that was asked for. A GPU holds at most `memory` bytes, by default most of what
    /// is free on the card.
    ///
    /// # Errors
    /// Where this machine lacks it.
    pub fn device(&self, memory: Option<u64>) -> anyhow::Result<Device> {
        let isa = self.isa.unwrap_or_else(Isa::best);
        if !isa.is_available() {
            bail!(
                "this machine lacks {isa}: leave --isa out to take {}",
                Isa::best()
            );
        }
        match self.device.as_str() {
            "reference" => Ok(Device::Reference),
            "cpu" => Ok(Device::Cpu(Cpu::new(isa, self.thread_count()?))),
            "auto" => self.best(isa, memory),
            other => match GpuName::parse(other)? {
                Some(name) => Ok(gpu::proven(name.open(memory)?)?),
                None => bail!("unknown device '{other}': cpu, cuda, cuda:N, auto or reference"),
            },
        }
    }

    /// The first GPU that can be used, else the CPU. Reports which one, and why.
    fn best(&self, isa: Isa, memory: Option<u64>) -> anyhow::Result<Device> {
        let (device, why) = match gpu::first_usable(memory) {
            Ok(device) => (device, "the first GPU that can be used".to_string()),
            Err(why) => (Device::Cpu(Cpu::new(isa, self.thread_count()?)), why),
        };
        eprintln!("device: {} ({why})", measure::device_name(&device));
        Ok(device)
    }

    fn thread_count(&self) -> anyhow::Result<usize> {
        match self.threads {
            Some(0) => bail!("--threads 0: at least one thread is needed"),
            Some(threads) => Ok(threads),
            None => std::thread::available_parallelism()
                .map(usize::from)
                .context("cannot count the cores of this machine: give --threads"),
        }
    }
}
/// Memory that a worker on `device` may use; `asked` is the option, if it was given. A GPU was
/// already opened with that limit.
pub fn memory_bytes(device: &Device, asked: Option<u64>) -> u64 {
    match (device, asked) {
        (Device::Cpu(_) | Device::Reference, Some(bytes)) => bytes,
        _ => measure::device_memory(device),
    }
}
