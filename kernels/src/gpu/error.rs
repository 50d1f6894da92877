//! What a GPU refuses.

use super::memory::{MemoryPurpose, MemoryReport};
use super::nvrtc::NvrtcError;

/// The oldest CUDA that the driver may speak, and the driver that brought it.
pub(super) const DRIVER_NEEDED: ((u32, u32), &str) = ((12, 0), "525");

/// Why a GPU cannot be used, or cannot do what it was asked for. Each text names the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The machine has no driver of NVIDIA's.
    #[error(
        "this machine has no NVIDIA driver: libcuda is not found. Install driver {} or newer, or \
         take the device cpu", DRIVER_NEEDED.1
    )]
    NoDriver,
    /// The driver is too old.
    #[error(
        "the NVIDIA driver speaks CUDA {}.{} and {}.{} is needed: install driver {} or newer",
        found.0, found.1, DRIVER_NEEDED.0.0, DRIVER_NEEDED.0.1, DRIVER_NEEDED.1
    )]
    DriverTooOld {
        /// Version of CUDA that it speaks, major and minor.
        found: (u32, u32),
    },
    /// The driver does not start.
    #[error(
        "the NVIDIA driver does not start: {reason}. See whether nvidia-smi works, and whether \
         CUDA_VISIBLE_DEVICES hides every card; or take the device cpu"
    )]
    NotStarted {
        /// What it said.
        reason: String,
    },
    /// There is no card of this number.
    #[error(
        "there is no device cuda:{index}: the driver shows {count} {}. Take one of a lower number, \
         or the device cpu", if *count == 1 { "card" } else { "cards" }
    )]
    NoDevice {
        /// The number asked for.
        index: usize,
        /// How many cards there are.
        count: usize,
    },
    /// The card is too old.
    #[error(
        "{name} has compute capability {}.{}, and Concord needs 6.1 or newer: older cards lack the \
         integer dot product. Take another card, or the device cpu", compute.0, compute.1
    )]
    CardTooOld {
        /// What its maker calls it.
        name: String,
        /// Its compute capability, major and minor.
        compute: (u32, u32),
    },
    /// There is no machine code for the card, and none can be made.
    #[error(
        "this binary carries no code of {module}.cu for {target}, the cache ({folder}) has none, \
         and none can be compiled: {cause}. Take a binary that was built where NVRTC is, or let it \
         be found here"
    )]
    NoKernels {
        /// The file of kernels.
        module: &'static str,
        /// What machine code is needed.
        target: String,
        /// Where compiled code is kept.
        folder: String,
        /// Why it cannot be compiled.
        cause: Box<NvrtcError>,
    },
    /// There is no memory left, even after the pool gave back what it kept.
    #[error(
        "the GPU has no {asked} bytes left for {purpose}: {report}. Give the stage fewer layers, \
         take smaller batches or a shorter sequence, raise the memory limit, or end what else runs \
         on the card"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// What for.
        purpose: MemoryPurpose,
        /// What was held then.
        report: Box<MemoryReport>,
    },
    /// The GPU no longer answers. All of its work and memory are gone.
    #[error(
        "the GPU is lost ({cause}): every result on it is gone. Start the worker again; where it \
         happens again, look into the system's log for Xid messages of the driver"
    )]
    Lost {
        /// What the driver said, and to which call.
        cause: String,
    },
    /// The card multiplies wrongly.
    #[error(
        "{card} multiplies wrongly by its {engine} engine ({case}): its results cannot be trusted. \
         Undo overclocking, install another driver, or take another card; where two cards of this \
         kind say so, please report it"
    )]
    WrongProducts {
        /// What its maker calls it.
        card: String,
        /// What multiplied.
        engine: String,
        /// Which element of which product, what came out, and what was expected.
        case: String,
    },
    /// A launch that the kernel does not allow.
    #[error(
        "kernel {module}::{name} cannot be launched: {reason}. This is an error in Concord: please \
         report it"
    )]
    Launch {
        /// Its file, without `.cu`.
        module: &'static str,
        /// The function in it.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The driver refused a call.
    #[error("the NVIDIA driver refused {call}: {reason}")]
    Call {
        /// The function.
        call: &'static str,
        /// What it said.
        reason: String,
    },
}
