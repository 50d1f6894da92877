//! Options that choose where a process computes.

use anyhow::{Context, bail};
use concord_kernels::Device;
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;

/// Where to compute. None of it changes a bit of any result.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArgs {
    /// "cpu" (SIMD and threads) or "reference" (scalar code, slow, for disputes).
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Threads; all cores by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instruction set: portable, avx2 or avx512; the best of this machine by default.
    #[arg(long, value_name = "ISA")]
    pub isa: Option<Isa>,
}

impl DeviceArgs {
    /// The device that was asked for.
    ///
    /// # Errors
    /// Where this machine lacks it.
    pub fn device(&self) -> anyhow::Result<Device> {
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
            other => bail!("unknown device '{other}': cpu or reference"),
        }
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
