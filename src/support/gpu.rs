//! Names of GPUs: a card by its number or, in builds for tests, an emulated GPU.

use anyhow::bail;
#[cfg(feature = "emulator")]
use concord_kernels::cuda::{Arch, arch::TARGETS, emulator::EmulatorOptions};
use concord_kernels::cuda::{Cuda, CudaError, CudaOptions, matmul};
use concord_kernels::{Device, KernelError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuName {
    /// The NVIDIA card of this number, as the driver counts them.
    Card(usize),
    /// A GPU that is emulated on the CPU.
    #[cfg(feature = "emulator")]
    Emulated {
        /// The architecture whose kernels it runs.
        arch: Arch,
        /// The number of launches after which it is lost.
        lost_after: Option<u64>,
    },
}

impl GpuName {
    /// Parses "cuda" or "cuda:N" or, in builds for tests, "emulated", "emulated:ARCH" and
    /// "emulated:ARCH:LAUNCHES", which is lost after that many launches. `None` for another device.
    ///
    /// # Errors
    /// Where the name is that of a GPU, but not a valid one.
    pub fn parse(name: &str) -> anyhow::Result<Option<Self>> {
        let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
        match kind {
            "cuda" => match number.parse() {
                Ok(index) => Ok(Some(Self::Card(index))),
                Err(_) => bail!("--device {name}: cuda:0 is the first card, cuda:1 the second"),
            },
            #[cfg(feature = "emulator")]
            "emulated" => match emulated(name) {
                Some(gpu) => Ok(Some(gpu)),
                None => {
                    let known = TARGETS.map(|target| target.arch.0.to_string()).join(", ");
                    bail!("--device {name}: emulated is one of {known}")
                }
            },
            _ => Ok(None),
        }
    }

    /// Opens it. Its pool holds at most `memory` bytes, by default most of what is free.
    ///
    /// # Errors
    /// Says what the driver or the card lacks.
    pub fn open(self, memory: Option<u64>) -> Result<Cuda, CudaError> {
        match self {
            Self::Card(index) => {
                let options = CudaOptions {
                    memory_bytes: memory,
                    ..CudaOptions::default()
                };
                Cuda::open(index, &options)
            }
            #[cfg(feature = "emulator")]
            Self::Emulated { arch, lost_after } => {
                let usual = EmulatorOptions::default();
                Ok(Cuda::emulated(EmulatorOptions {
                    arch,
                    lost_after,
                    memory_bytes: memory.unwrap_or(usual.memory_bytes),
                    ..usual
                }))
            }
        }
    }
}

#[cfg(feature = "emulator")]
fn emulated(name: &str) -> Option<GpuName> {
    let mut parts = name.split(':').skip(1);
    let arch = match parts.next() {
        None => EmulatorOptions::default().arch,
        Some(number) => {
            let mut known = TARGETS.iter().map(|target| target.arch);
            known.find(|arch| arch.0.to_string() == number)?
        }
    };
    let lost_after = parts.next().map(str::parse).transpose().ok()?;
    parts
        .next()
        .is_none()
        .then_some(GpuName::Emulated { arch, lost_after })
}

/// The first card that can be used.
///
/// # Errors
/// A sentence that says why there is none.
pub fn first_usable(memory: Option<u64>) -> Result<Device, String> {
    let count = Cuda::count().map_err(|error| cause(&error.to_string()))?;
    let mut refusals = Vec::new();
    for index in 0..count {
        let tried = GpuName::Card(index).open(memory).map_err(KernelError::from);
        match tried.and_then(proven) {
            Ok(device) => return Ok(device),
            Err(error) => refusals.push(format!("cuda:{index}: {}", cause(&error.to_string()))),
        }
    }
    match refusals.is_empty() {
        true => Err("the driver shows no card".to_string()),
        false => Err(refusals.join("; ")),
    }
}

/// The device, after all of its engines have multiplied worst-case digits correctly. They include
/// NVIDIA's library of products where the machine has it.
///
/// # Errors
/// [`CudaError::NoKernels`] where there are none for the card, [`CudaError::WrongProducts`] where
/// an engine gives a wrong product, or another error of the card.
pub fn proven(gpu: Cuda) -> Result<Device, KernelError> {
    matmul::verify(&gpu)?;
    matmul::offer_library(&gpu)?;
    Ok(Device::Cuda(gpu))
}

/// The part of an error message before its remedy.
fn cause(error: &str) -> String {
    let end = error.find(". ").unwrap_or(error.len());
    error[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_have_names() {
        assert_eq!(GpuName::parse("cuda").unwrap(), Some(GpuName::Card(0)));
        assert_eq!(GpuName::parse("cuda:3").unwrap(), Some(GpuName::Card(3)));
        assert_eq!(GpuName::parse("cpu").unwrap(), None);
        for name in ["cuda:", "cuda:first", "cuda:-1"] {
            let error = GpuName::parse(name).unwrap_err().to_string();
            assert!(error.contains(&format!("--device {name}:")), "{error}");
        }
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn emulated_gpus_have_the_architectures_of_kernels() {
        let parse = |name| GpuName::parse(name).unwrap();
        let gpu = |arch, lost_after| {
            let arch = Arch(arch);
            Some(GpuName::Emulated { arch, lost_after })
        };
        assert_eq!(parse("emulated:61"), gpu(61, None));
        assert_eq!(parse("emulated:90:70"), gpu(90, Some(70)));
        assert!(parse("emulated").is_some());
        for name in ["emulated:50", "emulated:80:", "emulated:80:1:2"] {
            let error = GpuName::parse(name).unwrap_err().to_string();
            assert!(error.contains("61, 70"), "{error}");
        }
    }

    #[test]
    fn the_cause_is_what_comes_before_the_remedy() {
        assert_eq!(cause("it is not 12.0. Install it, or go"), "it is not 12.0");
        assert_eq!(cause("nothing more"), "nothing more");
    }
}
