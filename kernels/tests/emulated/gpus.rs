//! Emulated GPUs that take their threads in different orders, and the comparison with the
//! reference.

use concord_kernels::conformance::{CaseInput, InputKind, difference};
use concord_kernels::cuda::emulator::{EmulatorOptions, Turns};
use concord_kernels::cuda::{Arch, Cuda};
use concord_kernels::{Device, KernelError, Tensor};

/// Three GPUs with different orders of threads and different sizes of grids.
pub fn gpus() -> [Cuda; 3] {
    let open = |turns, arch, multiprocessors| {
        Cuda::emulated(EmulatorOptions {
            arch: Arch(arch),
            turns,
            multiprocessors,
            ..EmulatorOptions::default()
        })
    };
    [
        open(Turns::Forward, 80, 4),
        open(Turns::Reverse, 61, 1),
        open(Turns::Shuffled(7), 75, 3),
    ]
}

/// The same, as devices.
pub fn devices() -> [Device; 3] {
    gpus().map(Device::Cuda)
}

/// Runs `op` on the reference and on every emulated GPU, and compares all bits.
pub fn same_bits(what: &str, op: impl Fn(&Device) -> OutputsOrError) {
    let expected = op(&Device::Reference).expect("the reference does not fail");
    for device in devices() {
        let name = device.name();
        let got = op(&device).unwrap_or_else(|error| panic!("{what} on {name}: {error}"));
        if let Some(first) = difference(&got, &expected) {
            panic!("{what} on {name}: {first:?}");
        }
    }
}

/// What an operation gives, output by output.
pub type OutputsOrError = Result<Vec<Vec<f32>>, KernelError>;

/// The elements of several tensors.
pub fn values(tensors: impl IntoIterator<Item = Tensor>) -> OutputsOrError {
    tensors.into_iter().map(Tensor::into_values).collect()
}

/// Input of every kind.
pub fn inputs() -> [CaseInput; 4] {
    InputKind::ALL.map(|kind| CaseInput::new(5, kind))
}

/// A tensor of `data`, where the device reads it.
pub fn placed(device: &Device, data: &[f32], shape: &[usize]) -> Result<Tensor, KernelError> {
    device.place(Tensor::new(shape, data.to_vec())?)
}
