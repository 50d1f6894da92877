//! Where operations run.

use crate::cpu::Cpu;
use crate::gpu::Cuda;
use crate::isa::Isa;

/// A back-end. All give the same bits; see NUMERICS.md.
///
/// ```
/// use concord_kernels::{Device, Tensor};
///
/// let x = Tensor::new(&[1, 4], vec![0.5, -1.0, 2.0, 0.25])?;
/// let w = Tensor::new(&[4], vec![1.0; 4])?;
/// let (by_reference, _) = Device::Reference.rmsnorm(&x, &w, 1e-5)?;
/// let (by_cpu, _) = Device::cpu(1).rmsnorm(&x, &w, 1e-5)?;
/// assert_eq!(by_reference, by_cpu);
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
#[derive(Clone, Debug)]
pub enum Device {
    /// Scalar code that can be compared with NUMERICS.md, and that the others must equal; slow.
    Reference,
    /// SIMD and threads.
    Cpu(Cpu),
    /// An NVIDIA GPU.
    Cuda(Cuda),
}

impl Device {
    /// The best instruction set of this CPU, on `threads` threads.
    pub fn cpu(threads: usize) -> Self {
        Self::Cpu(Cpu::new(Isa::best(), threads))
    }

    /// Runs `work` on the device's own threads, so that each of its operations starts there at
    /// once: for small tensors, handing every operation over costs more than the operation.
    pub fn on_its_threads<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Reference | Self::Cuda(_) => work(),
            Self::Cpu(cpu) => cpu.pool().install(work),
        }
    }

    /// As [`Self::on_its_threads`], for work of many short operations: threads of a CPU stay awake
    /// between them.
    pub fn on_awake_threads<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Reference | Self::Cuda(_) => work(),
            Self::Cpu(cpu) => cpu.with_threads_awake(work),
        }
    }

    /// The same device with threads of its own, for work that must not wait for this one's.
    pub fn with_own_threads(&self) -> Self {
        match self {
            Self::Reference => Self::Reference,
            // Work of several threads goes to the GPU in the order in which it is launched.
            Self::Cuda(gpu) => Self::Cuda(gpu.clone()),
            Self::Cpu(cpu) => Self::Cpu(Cpu::new(cpu.isa(), cpu.threads())),
        }
    }

    /// The name of this device in reports and claims, such as "cpu avx512 x2".
    pub fn name(&self) -> String {
        match self {
            Self::Reference => "reference".to_string(),
            Self::Cuda(gpu) => gpu.name().to_string(),
            Self::Cpu(cpu) => format!("cpu {} x{}", cpu.isa(), cpu.threads()),
        }
    }
}
