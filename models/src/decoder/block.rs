//! A decoder layer: `x += attention(norm(x))`, `x += feed_forward(norm(x))`.

use concord_kernels::{KernelError, Tensor};

use super::attention::{Attention, AttentionLayerTape};
use super::feed_forward::{FeedForward, FeedForwardTape};
use super::linear::{Backward, Linear};
use super::norm::Norm;
use super::pass::{LayerPass, PassContext};

/// The parameters of one layer.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) attention_norm: Norm,
    pub(super) attention: Attention,
    pub(super) feed_norm: Norm,
    pub(super) feed: FeedForward,
}

/// What the backward pass of a layer needs.
#[derive(Debug)]
pub(super) struct BlockTape {
    x: Tensor,
    attention_inverse: Tensor,
    attention: AttentionLayerTape,
    middle: Tensor,
    feed_inverse: Tensor,
    feed: FeedForwardTape,
}

impl Block {
    /// x `[m, d]` to `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &mut dyn LayerPass,
        x: Tensor,
    ) -> Result<(Tensor, BlockTape), KernelError> {
        let (normed, attention_inverse) = self.attention_norm.forward(pass.context().device, &x)?;
        let (mut middle, attention) = self.attention.forward(pass, &normed)?;
        pass.context().device.add_assign(&mut middle, &x)?;

        let (normed, feed_inverse) = self.feed_norm.forward(pass.context().device, &middle)?;
        let (mut y, feed) = self.feed.forward(pass, &normed)?;
        pass.context().device.add_assign(&mut y, &middle)?;
        let tape = BlockTape {
            x,
            attention_inverse,
            attention,
            middle,
            feed_inverse,
            feed,
        };
        Ok((y, tape))
    }

    /// Gradients of what is trained, and dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        context: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        dy: &Tensor,
        wants_dx: bool,
    ) -> Result<Option<Tensor>, KernelError> {
        let d_normed = self.feed.backward(run, &tape.feed, dy)?;
        let norm = &self.feed_norm;
        let mut d_middle = norm.backward(run, &d_normed, &tape.middle, &tape.feed_inverse)?;
        run.device.add_assign(&mut d_middle, dy)?;

        let norm = &self.attention_norm;
        // The norm's weight, where it is trained, needs the gradient behind it even at the bottom.
        let wants = wants_dx || norm.trains;
        let d_normed = self
            .attention
            .backward(context, run, &tape.attention, &d_middle, wants)?;
        let (Some(d_normed), inverse) = (d_normed, &tape.attention_inverse) else {
            return Ok(None);
        };
        if !wants_dx {
            norm.weight_gradient(run, &d_normed, &tape.x, inverse)?;
            return Ok(None);
        }
        let mut dx = norm.backward(run, &d_normed, &tape.x, inverse)?;
        run.device.add_assign(&mut dx, &d_middle)?;
        Ok(Some(dx))
    }

    /// Its norms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut Norm> {
        let own = [&mut self.attention_norm, &mut self.feed_norm];
        own.into_iter().chain(self.attention.norms_mut())
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let attention = self.attention.linears_mut();
        attention.into_iter().chain(self.feed.linears_mut())
    }
}
