//! A decoder layer: attention and feed-forward layer on the residual stream, with the norms before
//! and after them.

use std::borrow::Cow;

use concord_kernels::{Device, KernelError, Tensor};

use super::attention::{Attention, AttentionLayerTape};
use super::cut_rows::{CutGradients, CutRows, CutShape};
use super::feed_forward::{FeedForward, FeedForwardTape};
use super::linear::{Backward, Linear};
use super::norm::{Norm, NormTape};
use super::pass::{LayerPass, PassContext};

/// The parameters of one layer.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) attention_in: Option<Norm>,
    pub(super) attention: Attention,
    pub(super) attention_out: Option<Norm>,
    pub(super) feed_in: Option<Norm>,
    pub(super) feed: FeedForward,
    pub(super) feed_out: Option<Norm>,
    /// Whether both take the input of the layer: `x + (attention + feed)`. A feed-forward layer
    /// without a norm of its own then shares the normed input of attention.
    pub(super) parallel: bool,
    /// The factor on what is added to the residual stream.
    pub(super) residual: Option<f32>,
    /// Where later stages have the last experts of the layer. It then has the norms and the order
    /// that `DecoderConfig::experts_to_cut` asks for.
    pub(super) cut: Option<CutShape>,
}

/// What the backward pass of a layer needs.
#[derive(Debug)]
pub(super) struct BlockTape {
    x: Tensor,
    attention_in: Option<NormTape>,
    attention: AttentionLayerTape,
    attention_out: Option<OutTape>,
    /// The input of the feed-forward layer's norm; `None` where it is x.
    middle: Option<Tensor>,
    feed_in: Option<NormTape>,
    feed: FeedForwardTape,
    feed_out: Option<OutTape>,
}

impl BlockTape {
    /// What entered the layer, `[m, d]`.
    pub(super) fn into_input(self) -> Tensor {
        self.x
    }
}

/// Of a norm of what is added.
#[derive(Debug)]
struct OutTape {
    x: Tensor,
    norm: NormTape,
}

impl Block {
    /// x `[m, d]` to `[m, d]`; or to what goes over a cut within the layer.
    pub(super) fn forward(
        &self,
        pass: &mut dyn LayerPass,
        x: Tensor,
    ) -> Result<(Tensor, BlockTape), KernelError> {
        let (normed, attention_in) = before(&self.attention_in, pass.context().device, &x)?;
        let (y, attention) = self.attention.forward(pass, &normed)?;
        let (mut added, attention_out) = self.after(&self.attention_out, pass, y)?;
        if self.parallel {
            let (own, feed_in) = match &self.feed_in {
                Some(_) => before(&self.feed_in, pass.context().device, &x)?,
                None => (Cow::Borrowed(&*normed), None),
            };
            let (y, feed) = self.feed.forward(pass, &own)?;
            let (from_feed, feed_out) = self.after(&self.feed_out, pass, y)?;
            drop(own);
            drop(normed);
            let device = pass.context().device;
            device.add_assign(&mut added, &from_feed)?;
            device.add_assign(&mut added, &x)?;
            let tape = BlockTape {
                x,
                attention_in,
                attention,
                attention_out,
                middle: None,
                feed_in,
                feed,
                feed_out,
            };
            return Ok((added, tape));
        }
        drop(normed);
        let mut middle = added;
        pass.context().device.add_assign(&mut middle, &x)?;
        let (normed, feed_in) = before(&self.feed_in, pass.context().device, &middle)?;
        let (y, feed) = self.feed.forward(pass, &normed)?;
        let (y, feed_out) = match (self.cut, &feed) {
            (Some(_), FeedForwardTape::Experts(tape)) => {
                let parts = [&middle, &*normed, &y];
                let device = pass.context().device;
                (CutRows::joined(device, parts, tape.routes())?, None)
            }
            _ => {
                drop(normed);
                let (mut y, feed_out) = self.after(&self.feed_out, pass, y)?;
                pass.context().device.add_assign(&mut y, &middle)?;
                (y, feed_out)
            }
        };
        let tape = BlockTape {
            x,
            attention_in,
            attention,
            attention_out,
            middle: Some(middle),
            feed_in,
            feed,
            feed_out,
        };
        Ok((y, tape))
    }

    /// What `y` adds to the residual stream: the norm after it and the factor are applied.
    fn after(
        &self,
        norm: &Option<Norm>,
        pass: &dyn LayerPass,
        y: Tensor,
    ) -> Result<(Tensor, Option<OutTape>), KernelError> {
        let device = pass.context().device;
        let (y, tape) = match norm {
            None => (y, None),
            Some(norm) => {
                let (normed, tape) = norm.forward(device, &y)?;
                (normed, Some(OutTape { x: y, norm: tape }))
            }
        };
        match self.residual {
            Some(factor) => Ok((device.scaled(&y, factor)?, tape)),
            None => Ok((y, tape)),
        }
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
        let over_cut = match &self.cut {
            Some(shape) => Some(CutGradients::split(run.device, dy, shape)?),
            None => None,
        };
        let dy = over_cut.as_ref().map_or(dy, |over_cut| &over_cut.dy);
        let others = over_cut.as_ref().map(|over_cut| &over_cut.bank);
        let d_feed = self.after_backward(run, &self.feed_out, &tape.feed_out, dy)?;
        let mut d_feed = self.feed.backward(run, &tape.feed, &d_feed, others)?;
        if let (Some(norm), Some(norm_tape)) = (&self.feed_in, &tape.feed_in) {
            let entered = tape.middle.as_ref().unwrap_or(&tape.x);
            d_feed = norm.backward(run, &d_feed, entered, norm_tape)?;
        }
        // The gradient of the residual stream after attention.
        let d_middle = match self.parallel {
            true => Cow::Borrowed(dy),
            false => {
                run.device.add_assign(&mut d_feed, dy)?;
                Cow::Owned(std::mem::replace(&mut d_feed, Tensor::zeros(&[0])))
            }
        };
        let d_attention =
            self.after_backward(run, &self.attention_out, &tape.attention_out, &d_middle)?;
        // A trained norm needs the gradient of its output, even where dx is not wanted.
        let trains = self.attention_in.as_ref().is_some_and(|norm| norm.trains);
        let wants = wants_dx || trains;
        let attention = &tape.attention;
        let d_normed = self
            .attention
            .backward(context, run, attention, &d_attention, wants)?;
        let Some(mut dx) = d_normed else {
            return Ok(None);
        };
        let shares_norm = self.parallel && self.feed_in.is_none();
        if shares_norm {
            run.device.add_assign(&mut dx, &d_feed)?;
        }
        if let (Some(norm), Some(norm_tape)) = (&self.attention_in, &tape.attention_in) {
            if !wants_dx {
                norm.weight_gradient(run, &dx, &tape.x, norm_tape)?;
                return Ok(None);
            }
            dx = norm.backward(run, &dx, &tape.x, norm_tape)?;
        }
        if self.parallel && !shares_norm {
            run.device.add_assign(&mut dx, &d_feed)?;
        }
        run.device.add_assign(&mut dx, &d_middle)?;
        Ok(Some(dx))
    }

    /// The gradient of `y` in [`Self::after`], from that of what it adds.
    fn after_backward<'a>(
        &self,
        run: &mut Backward<'_>,
        norm: &Option<Norm>,
        tape: &Option<OutTape>,
        dy: &'a Tensor,
    ) -> Result<Cow<'a, Tensor>, KernelError> {
        let dy = match self.residual {
            Some(factor) => Cow::Owned(run.device.scaled(dy, factor)?),
            None => Cow::Borrowed(dy),
        };
        match (norm, tape) {
            (Some(norm), Some(tape)) => {
                Ok(Cow::Owned(norm.backward(run, &dy, &tape.x, &tape.norm)?))
            }
            _ => Ok(dy),
        }
    }

    /// Its norms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut Norm> {
        let own = [
            &mut self.attention_in,
            &mut self.attention_out,
            &mut self.feed_in,
            &mut self.feed_out,
        ];
        own.into_iter().flatten().chain(self.attention.norms_mut())
    }

    /// Its matrices.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let attention = self.attention.linears_mut();
        attention.chain(self.feed.linears_mut())
    }
}

/// The input of a part of the layer: x after the norm before that part, or x where it has none.
fn before<'a>(
    norm: &Option<Norm>,
    device: &Device,
    x: &'a Tensor,
) -> Result<(Cow<'a, Tensor>, Option<NormTape>), KernelError> {
    match norm {
        None => Ok((Cow::Borrowed(x), None)),
        Some(norm) => {
            let (normed, tape) = norm.forward(device, x)?;
            Ok((Cow::Owned(normed), Some(tape)))
        }
    }
}
