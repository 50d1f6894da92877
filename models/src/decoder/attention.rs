//! The attention of a layer, from its normed input to what the output projection makes of it.

use concord_kernels::coded::Coded;
use concord_kernels::ops::AttentionShape;
use concord_kernels::{Device, KernelError, Tensor};

use super::linear::{Backward, Linear, LinearTape};
use super::norm::Norm;
use super::pass::{Attended, LayerPass, PassContext};

/// The parameters of one attention.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    /// Norms over each head of q and k (Qwen3).
    pub(super) qk_norm: Option<(Norm, Norm)>,
    pub(super) shape: AttentionShape,
}

/// What the backward pass needs.
#[derive(Debug)]
pub(super) struct AttentionLayerTape {
    input: Coded,
    qkv: [LinearTape; 3],
    heads: Option<[HeadNormTape; 2]>,
    attended: Attended,
    o_input: Coded,
    o: LinearTape,
}

#[derive(Debug)]
struct HeadNormTape {
    x: Tensor,
    inverse: Tensor,
}

impl Attention {
    /// x `[m, d]` to `[m, d]`.
    pub(super) fn forward(
        &self,
        pass: &mut dyn LayerPass,
        x: &Tensor,
    ) -> Result<(Tensor, AttentionLayerTape), KernelError> {
        let context = pass.context();
        let (device, p) = (context.device, context.precision);
        let input = device.code(x, self.q.weight.cols, p)?;
        let (q, q_tape) = pass.linear(&self.q, &input)?;
        let (k, k_tape) = pass.linear(&self.k, &input)?;
        let (v, v_tape) = pass.linear(&self.v, &input)?;
        let (q, k, heads) = self.head_norms(device, q, k)?;
        let (q, k) = rotated(&context, q, k, false)?;
        let attended = pass.attend(self, [&q, &k, &v])?;
        let context = pass.context();
        let o_input = context.device.code(attended.out(), self.o.weight.cols, p)?;
        let (y, o) = pass.linear(&self.o, &o_input)?;
        let tape = AttentionLayerTape {
            input,
            qkv: [q_tape, k_tape, v_tape],
            heads,
            attended,
            o_input,
            o,
        };
        Ok((y, tape))
    }

    fn head_norms(
        &self,
        device: &Device,
        q: Tensor,
        k: Tensor,
    ) -> Result<(Tensor, Tensor, Option<[HeadNormTape; 2]>), KernelError> {
        let Some((q_norm, k_norm)) = &self.qk_norm else {
            return Ok((q, k, None));
        };
        let (new_q, q_inverse) = q_norm.forward(device, &q)?;
        let (new_k, k_inverse) = k_norm.forward(device, &k)?;
        let tape = |x, inverse| HeadNormTape { x, inverse };
        let tapes = [tape(q, q_inverse), tape(k, k_inverse)];
        Ok((new_q, new_k, Some(tapes)))
    }

    /// Gradients of what is trained, and dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        context: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &AttentionLayerTape,
        dy: &Tensor,
        wants_dx: bool,
    ) -> Result<Option<Tensor>, KernelError> {
        let d_mixed = self.o.backward(run, dy, &tape.o_input, &tape.o)?;
        let [dq, dk, dv] = self.attend_backward(context, run, tape, &d_mixed)?;
        let [q_tape, k_tape, v_tape] = &tape.qkv;
        let input = &tape.input;
        if !wants_dx {
            self.q.own_gradients(run, &dq, input, q_tape)?;
            self.k.own_gradients(run, &dk, input, k_tape)?;
            self.v.own_gradients(run, &dv, input, v_tape)?;
            return Ok(None);
        }
        let mut dx = self.q.backward(run, &dq, input, q_tape)?;
        let from_k = self.k.backward(run, &dk, input, k_tape)?;
        let from_v = self.v.backward(run, &dv, input, v_tape)?;
        run.device.add_assign(&mut dx, &from_k)?;
        run.device.add_assign(&mut dx, &from_v)?;
        Ok(Some(dx))
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
        let sequences = run.atoms.sequences();
        let g = device.attention_backward(codes, out, d_mixed, sequences, &self.shape, p)?;
        let (mut dq, mut dk) = rotated(context, g.dq, g.dk, true)?;
        if let (Some((q_norm, k_norm)), Some([q_tape, k_tape])) = (&self.qk_norm, &tape.heads) {
            dq = q_norm.backward(run, &dq, &q_tape.x, &q_tape.inverse)?;
            dk = k_norm.backward(run, &dk, &k_tape.x, &k_tape.inverse)?;
        }
        Ok([dq, dk, g.dv])
    }

    /// Its projections.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        vec![&mut self.q, &mut self.k, &mut self.v, &mut self.o]
    }

    /// Its norms.
    pub(super) fn norms_mut(&mut self) -> Vec<&mut Norm> {
        match &mut self.qk_norm {
            Some((q_norm, k_norm)) => vec![q_norm, k_norm],
            None => Vec::new(),
        }
    }
}

fn rotated(
    context: &PassContext<'_>,
    mut q: Tensor,
    mut k: Tensor,
    inverse: bool,
) -> Result<(Tensor, Tensor), KernelError> {
    let (device, positions) = (context.device, context.positions);
    device.rope(&mut q, context.rope, positions, inverse)?;
    device.rope(&mut k, context.rope, positions, inverse)?;
    Ok((q, k))
}
