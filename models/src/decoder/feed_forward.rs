//! The feed-forward part of a layer.

use std::borrow::Cow;

use concord_kernels::{KernelError, Tensor};

use super::dense::{Dense, DenseTape};
use super::experts::{BankGradients, Experts, ExpertsTape};
use super::linear::{Backward, Linear};
use super::pass::LayerPass;

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    /// Every token goes through the same matrices.
    Dense(Box<Dense>),
    /// Every token goes through some of the experts.
    Experts(Box<Experts>),
}

/// Values by the names of matrices.
pub(super) type NamedParts<'a> = Vec<(Cow<'a, str>, Cow<'a, Tensor>)>;

/// What the backward pass needs.
#[derive(Debug)]
pub(super) enum FeedForwardTape {
    /// Of [`FeedForward::Dense`].
    Dense(Box<DenseTape>),
    /// Of [`FeedForward::Experts`].
    Experts(Box<ExpertsTape>),
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
                Ok((y, FeedForwardTape::Dense(Box::new(tape))))
            }
            Self::Experts(experts) => {
                let (y, tape) = experts.forward(pass, x)?;
                Ok((y, FeedForwardTape::Experts(Box::new(tape))))
            }
        }
    }

    /// Gradients of what is trained, and dx `[m, d]`; `others` as in [`Experts::backward`].
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        tape: &FeedForwardTape,
        dy: &Tensor,
        others: Option<&BankGradients>,
    ) -> Result<Tensor, KernelError> {
        match (self, tape) {
            (Self::Dense(dense), FeedForwardTape::Dense(tape)) => dense.backward(run, tape, dy),
            (Self::Experts(experts), FeedForwardTape::Experts(tape)) => {
                experts.backward(run, tape, dy, others)
            }
            _ => unreachable!("a tape is of the part that made it"),
        }
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::Dense(dense) => dense.linears_mut(),
            Self::Experts(experts) => experts.linears_mut(),
        }
    }

    /// Splits the value of a tensor of the weights into the values of its matrices.
    pub(super) fn parts<'a>(
        &self,
        name: &'a str,
        value: &'a Tensor,
    ) -> Result<NamedParts<'a>, KernelError> {
        if let Self::Experts(experts) = self
            && let Some(fused) = experts.bank.fused.as_ref().filter(|fused| fused.has(name))
        {
            let parts = fused
                .all_parts(name, experts.bank.count, value)?
                .into_iter();
            let owned = parts.map(|(name, part)| (Cow::Owned(name), Cow::Owned(part)));
            return Ok(owned.collect());
        }
        Ok(vec![(Cow::Borrowed(name), Cow::Borrowed(value))])
    }

    /// Its experts, where it is made of them.
    pub(super) fn experts(&self) -> Option<&Experts> {
        match self {
            Self::Dense(_) => None,
            Self::Experts(experts) => Some(experts),
        }
    }
}
