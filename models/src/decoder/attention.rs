//! The attention of a layer, from its normed input to the result of the output projection.

use concord_kernels::coded::Coded;
use concord_kernels::ops::AttentionShape;
use concord_kernels::{Device, KernelError, Tensor};

use super::gradients::TensorUse;
use super::linear::{Backward, Linear, LinearTape};
use super::norm::{Norm, NormTape};
use super::pass::{Attended, LayerPass, PassContext};
use super::qkv::{Qkv, QkvTape};

/// The parameters of one attention.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) qkv: Qkv,
    pub(super) o: Linear,
    /// Norms of q and k, of their heads or of their whole width.
    pub(super) qk_norm: Option<(Norm, Norm)>,
    /// The index of its rotary table among those of the stage; `None` rotates nothing.
    pub(super) rope: Option<usize>,
    pub(super) sinks: Option<Sinks>,
    pub(super) shape: AttentionShape,
}

/// Attention sinks: a logit of each query head that takes part in the softmax but has no value.
#[derive(Clone, Debug)]
pub(super) struct Sinks {
    pub(super) logits: Tensor, // [heads]
    pub(super) name: String,
    pub(super) trains: bool,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct AttentionLayerTape {
    qkv: QkvTape,
    norms: Option<[QkNormTape; 2]>,
    attended: Attended,
    o_input: Coded,
    o: LinearTape,
}

#[derive(Debug)]
struct QkNormTape {
    x: Tensor,
    norm: NormTape,
}

impl Attention {
    /// x `[m, d]` to `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &mut dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, AttentionLayerTape), KernelError> {
        let ([q, k, v], qkv) = self.qkv.forward(pass, x)?;
        let context = pass.context();
        let p = context.precision;
        let (q, k, norms) = self.normed(context.device, q, k)?;
        let (q, k) = self.rotated(&context, q, k, false)?;
        let attended = pass.attend((&self.shape, self.sinks()), [&q, &k, &v])?;
        let device = pass.context().device;
        let o_input = device.code(attended.out(), self.o.weight.cols, p)?;
        let (y, o) = pass.linear(&self.o, &o_input)?;
        let tape = AttentionLayerTape {
            qkv,
            norms,
            attended,
            o_input,
            o,
        };
        Ok((y, tape))
    }

    /// The logits of the sinks, `[heads]`.
    pub(super) fn sinks(&self) -> Option<&Tensor> {
        self.sinks.as_ref().map(|sinks| &sinks.logits)
    }

    fn normed(
        &self,
        device: &Device,
        q: Tensor,
        k: Tensor,
    ) -> Result<(Tensor, Tensor, Option<[QkNormTape; 2]>), KernelError> {
        let Some((q_norm, k_norm)) = &self.qk_norm else {
            return Ok((q, k, None));
        };
        let (new_q, q_tape) = q_norm.forward(device, &q)?;
        let (new_k, k_tape) = k_norm.forward(device, &k)?;
        let tape = |x, norm| QkNormTape { x, norm };
        let tapes = [tape(q, q_tape), tape(k, k_tape)];
        Ok((new_q, new_k, Some(tapes)))
    }

    /// Adds the gradients of what is trained, and returns dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        context: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &AttentionLayerTape,
        dy: &Tensor,
        wants_dx: bool,
    ) -> Result<Option<Tensor>, KernelError> {
        let d_mixed = self.o.backward(run, dy, &tape.o_input, &tape.o)?;
        let gradients = self.attend_backward(context, run, tape, &d_mixed)?;
        self.qkv.backward(run, &tape.qkv, gradients, wants_dx)
    }

    /// dq, dk, dv at the outputs of the projections.
    fn attend_backward(
        &self,
        context: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &AttentionLayerTape,
        d_mixed: &Tensor,
    ) -> Result<[Tensor; 3], KernelError> {
        let (device, p) = (context.device, context.precision);
        let attended = tape.attended.tape();
        let (codes, out) = (&attended.codes, &attended.out);
        let over = (&attended.documents, run.atoms);
        let (shape, sinks) = (&self.shape, self.sinks());
        let g = device.attention_backward(codes, out, d_mixed, over, shape, sinks, p)?;
        if let (Some(sinks), Some(gradient)) = (&self.sinks, g.d_sinks)
            && sinks.trains
        {
            run.gradients.insert(&sinks.name, TensorUse::Own, gradient);
        }
        let (mut dq, mut dk) = self.rotated(context, g.dq, g.dk, true)?;
        if let (Some((q_norm, k_norm)), Some([q_tape, k_tape])) = (&self.qk_norm, &tape.norms) {
            dq = q_norm.backward(run, &dq, &q_tape.x, &q_tape.norm)?;
            dk = k_norm.backward(run, &dk, &k_tape.x, &k_tape.norm)?;
        }
        Ok([dq, dk, g.dv])
    }

    fn rotated(
        &self,
        context: &PassContext<'_>,
        mut q: Tensor,
        mut k: Tensor,
        inverse: bool,
    ) -> Result<(Tensor, Tensor), KernelError> {
        if let Some(table) = self.rope.map(|index| &context.ropes[index]) {
            let (device, positions) = (context.device, context.positions);
            device.rope(&mut q, table, positions, inverse)?;
            device.rope(&mut k, table, positions, inverse)?;
        }
        Ok((q, k))
    }

    /// Its projections.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.qkv.linears_mut().iter_mut().chain([&mut self.o])
    }

    /// Its norms.
    pub(super) fn norms_mut(&mut self) -> Vec<&mut Norm> {
        match &mut self.qk_norm {
            Some((q_norm, k_norm)) => vec![q_norm, k_norm],
            None => Vec::new(),
        }
    }
}
