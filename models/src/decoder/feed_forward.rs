//! The feed-forward part of a layer.

use concord_kernels::{KernelError, Tensor};

use super::dense::{Dense, DenseTape};
use super::linear::{Backward, Linear};
use super::pass::LayerPass;

/// What follows attention in a layer.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    /// Every token through the same matrices.
    Dense(Dense),
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) enum FeedForwardTape {
    /// Of [`FeedForward::Dense`].
    Dense(DenseTape),
}

impl FeedForward {
    /// x `[m, d]` to `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &mut dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, FeedForwardTape), KernelError> {
        match self {
            Self::Dense(dense) => {
                let (y, tape) = dense.forward(pass, x)?;
                Ok((y, FeedForwardTape::Dense(tape)))
            }
        }
    }

    /// Gradients of what is trained, and dx `[m, d]`.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &FeedForwardTape,
        dy: &Tensor,
    ) -> Result<Tensor, KernelError> {
        match (self, tape) {
            (Self::Dense(dense), FeedForwardTape::Dense(tape)) => dense.backward(run, tape, dy),
        }
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::Dense(dense) => dense.linears_mut(),
        }
    }
}
