//! Where operations run.

use crate::cpu::Cpu;
use crate::isa::Isa;

/// A back-end. All give the same bits; see NUMERICS.md.
#[derive(Clone, Debug)]
pub enum Device {
    /// Scalar code that can be read against the contract: the judge, and slow.
    Reference,
    /// SIMD and threads.
    Cpu(Cpu),
}

impl Device {
    /// The best instruction set of this CPU, on `threads` threads.
    pub fn cpu(threads: usize) -> Self {
        Self::Cpu(Cpu::new(Isa::best(), threads))
    }

    /// What reports and claims call this device, such as "cpu avx512 x2".
    pub fn name(&self) -> String {
        match self {
            Self::Reference => "reference".to_string(),
            Self::Cpu(cpu) => format!("cpu {} x{}", cpu.isa(), cpu.threads()),
        }
    }
}
