//! What a model takes in memory, before anything is loaded: the one count that planners plan by,
//! workers check their room against and `concord plan` prints.
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

/// Bytes that one stage takes, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageBytes {
    /// Weights, as what is computed with: codes, norms, the embedding, factors of an adapter.
    pub weights: u64,
    /// Values of what is trained: as committed, those of the step before and those of the step
    /// after.
    pub state: u64,
    /// The optimizer's two moments of each of these.
    pub moments: u64,
    /// Gradients of all microbatches of a step.
    pub gradients: u64,
    /// Activations that wait for the backward pass.
    pub activations: u64,
    /// Keys and values.
    pub key_values: u64,
    /// What passes come and go with, and the process itself.
    pub workspace: u64,
}

impl StageBytes {
    /// All of it.
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

/// Weights of a model: elements of all its tensors.
pub fn parameters(config: &crate::config::DecoderConfig) -> u64 {
    let elements = |shape: &[usize]| shape.iter().map(|&dim| dim as u64).product::<u64>();
    let tensors = config.tensors().into_iter();
    tensors.map(|tensor| elements(&tensor.shape)).sum()
}
