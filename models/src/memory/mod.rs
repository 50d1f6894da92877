//! How much memory a model needs, computed before anything is loaded. Planners, the checks of
//! workers and `concord plan` all use this count.
//!
//! It counts what a process on the host holds at its peak, with the pages of weights that stay
//! packed in a mapped file: the operating system takes these back where memory is short, and all
//! processes of a machine share them. Pages that are read once, to make codes of them, are not in
//! it.

mod serving;
mod training;

pub use serving::{ServingBytes, page_bytes};
pub use training::{PartBytes, TrainingBytes, TrainingRun};

/// Bytes of a process before it holds any part of a model: code, threads, buffers of connections.
pub const PROCESS_BYTES: u64 = 32 << 20;

/// Bytes that one stage takes, by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageBytes {
    /// Weights in the form that is computed with: codes, norms, the embedding, the factors of an
    /// adapter.
    pub weights: u64,
    /// Values of what is trained, three times: as committed, of the step before, and of the step
    /// after.
    pub state: u64,
    /// The optimizer's two moments of each of these states.
    pub moments: u64,
    /// Gradients: sums on their way up the tree over microbatches, and what is held for checkers.
    pub gradients: u64,
    /// Activations that wait for the backward pass.
    pub activations: u64,
    /// Keys and values.
    pub key_values: u64,
    /// Intermediate values of forward and backward passes, and the process itself.
    pub workspace: u64,
}

impl StageBytes {
    /// The sum of all fields.
    pub fn total(&self) -> u64 {
        let Self {
            weights,
            state,
            moments,
            gradients,
            activations,
            key_values,
            workspace,
        } = *self;
        [
            weights,
            state,
            moments,
            gradients,
            activations,
            key_values,
            workspace,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// The number of parameters of a model: the elements of all its tensors.
pub fn parameters(config: &crate::config::DecoderConfig) -> u64 {
    let elements = |shape: &[usize]| shape.iter().map(|&dim| dim as u64).product::<u64>();
    let tensors = config.tensors().into_iter();
    tensors.map(|tensor| elements(&tensor.shape)).sum()
}
