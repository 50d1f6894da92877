//! A decoder layer: `x += attention(norm(x))`, `x += mlp(norm(x))`.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::{Atoms, AttentionCodes, AttentionOut, AttentionShape};
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, Ids, KernelError, Tensor};

use super::cache::KvCache;
use super::linear::{Backward, Linear, LinearTape};
use super::norm::Norm;

/// The parameters of one layer.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) attention_norm: Norm,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    /// Norms over each head of q and k (Qwen3).
    pub(super) qk_norm: Option<(Norm, Norm)>,
    pub(super) mlp_norm: Norm,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) shape: AttentionShape,
}

/// What all layers of a stage share in one pass.
pub(super) struct PassContext<'a> {
    pub(super) device: &'a Device,
    pub(super) rope: &'a RopeTable,
    pub(super) positions: &'a Ids,
    pub(super) atoms: Atoms,
    pub(super) precision: Precision,
}

/// What the backward pass of a layer needs.
#[derive(Debug)]
pub(super) struct BlockTape {
    x: Tensor,
    attention_inverse: Tensor,
    attention_input: Coded,
    qkv: [LinearTape; 3],
    heads: Option<[HeadNormTape; 2]>,
    attention: AttentionTape,
    o_input: Coded,
    o: LinearTape,
    middle: Tensor,
    mlp_inverse: Tensor,
    mlp_input: Coded,
    g: Tensor,
    u: Tensor,
    gate_up: [LinearTape; 2],
    down_input: Coded,
    down: LinearTape,
}

#[derive(Debug)]
struct HeadNormTape {
    x: Tensor,
    inverse: Tensor,
}

/// The attention of all sequences of a microbatch.
#[derive(Debug)]
struct AttentionTape {
    codes: AttentionCodes,
    out: AttentionOut,
}

impl Block {
    /// x `[m, d]` to `[m, d]`. With a cache (layer index, cache) the tokens follow those in it.
    pub(super) fn forward(
        &self,
        pass: &PassContext<'_>,
        x: Tensor,
        cache: Option<(usize, &mut KvCache)>,
    ) -> Result<(Tensor, BlockTape), KernelError> {
        let (device, p) = (pass.device, pass.precision);
        let (normed, attention_inverse) = self.attention_norm.forward(device, &x)?;
        let attention_input = device.code(&normed, self.q.weight.cols, p)?;
        let (q, q_tape) = self.q.forward(device, &attention_input, p)?;
        let (k, k_tape) = self.k.forward(device, &attention_input, p)?;
        let (v, v_tape) = self.v.forward(device, &attention_input, p)?;
        let (q, k, heads) = self.head_norms(device, q, k)?;
        let (q, k) = rotated(pass, q, k, false)?;
        let attention = self.attend(pass, &[q, k, v], cache)?;
        let o_input = device.code(&attention.out.out, self.o.weight.cols, p)?;
        let (mut middle, o) = self.o.forward(device, &o_input, p)?;
        device.add_assign(&mut middle, &x)?;

        let (normed, mlp_inverse) = self.mlp_norm.forward(device, &middle)?;
        let mlp_input = device.code(&normed, self.gate.weight.cols, p)?;
        let (g, gate_tape) = self.gate.forward(device, &mlp_input, p)?;
        let (u, up_tape) = self.up.forward(device, &mlp_input, p)?;
        let hidden = device.swiglu(&g, &u)?;
        let down_input = device.code(&hidden, self.down.weight.cols, p)?;
        let (mut y, down) = self.down.forward(device, &down_input, p)?;
        device.add_assign(&mut y, &middle)?;

        let tape = BlockTape {
            x,
            attention_inverse,
            attention_input,
            qkv: [q_tape, k_tape, v_tape],
            heads,
            attention,
            o_input,
            o,
            middle,
            mlp_inverse,
            mlp_input,
            g,
            u,
            gate_up: [gate_tape, up_tape],
            down_input,
            down,
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

    /// Attention of each sequence of the microbatch on its own; or of new tokens over a cache.
    fn attend(
        &self,
        pass: &PassContext<'_>,
        [q, k, v]: &[Tensor; 3],
        cache: Option<(usize, &mut KvCache)>,
    ) -> Result<AttentionTape, KernelError> {
        let (device, shape, p) = (pass.device, &self.shape, pass.precision);
        let codes = device.attention_codes(q, k, v, shape, p)?;
        let out = match cache {
            None => device.attention(&codes, pass.atoms.sequences(), shape, None, p)?,
            Some((layer, cache)) => {
                let first = cache.tokens();
                let keys = cache.layer(layer);
                {
                    let _cached = device.account(MemoryPurpose::KeyValues);
                    device.append_keys(keys, &codes.kv)?;
                }
                device.attention_cached(&codes.queries, keys, first, shape, None, p)?
            }
        };
        Ok(AttentionTape { codes, out })
    }

    /// Gradients of what is trained, and dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        pass: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        dy: &Tensor,
        wants_dx: bool,
    ) -> Result<Option<Tensor>, KernelError> {
        let device = pass.device;
        let d_middle = self.mlp_backward(device, run, tape, dy)?;
        let d_mixed = self.o.backward(run, &d_middle, &tape.o_input, &tape.o)?;
        let [dq, dk, dv] = self.attend_backward(pass, run, tape, &d_mixed)?;
        let [q_tape, k_tape, v_tape] = &tape.qkv;
        let (input, inverse) = (&tape.attention_input, &tape.attention_inverse);
        // The norm's weight, where it is trained, needs the gradient behind it even at the bottom.
        if !wants_dx && !self.attention_norm.trains {
            self.q.own_gradients(run, &dq, input, q_tape)?;
            self.k.own_gradients(run, &dk, input, k_tape)?;
            self.v.own_gradients(run, &dv, input, v_tape)?;
            return Ok(None);
        }
        let mut d_normed = self.q.backward(run, &dq, input, q_tape)?;
        let from_k = self.k.backward(run, &dk, input, k_tape)?;
        let from_v = self.v.backward(run, &dv, input, v_tape)?;
        device.add_assign(&mut d_normed, &from_k)?;
        device.add_assign(&mut d_normed, &from_v)?;
        let norm = &self.attention_norm;
        if !wants_dx {
            norm.weight_gradient(run, &d_normed, &tape.x, inverse)?;
            return Ok(None);
        }
        let mut dx = norm.backward(run, &d_normed, &tape.x, inverse)?;
        device.add_assign(&mut dx, &d_middle)?;
        Ok(Some(dx))
    }

    /// The gradient between attention and feed-forward layer, `[m, d]`.
    fn mlp_backward(
        &self,
        device: &Device,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        dy: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let d_hidden = self.down.backward(run, dy, &tape.down_input, &tape.down)?;
        let (dg, du) = device.swiglu_backward(&d_hidden, &tape.g, &tape.u)?;
        let [gate_tape, up_tape] = &tape.gate_up;
        let mut d_normed = self.gate.backward(run, &dg, &tape.mlp_input, gate_tape)?;
        let from_up = self.up.backward(run, &du, &tape.mlp_input, up_tape)?;
        device.add_assign(&mut d_normed, &from_up)?;
        let norm = &self.mlp_norm;
        let mut d_middle = norm.backward(run, &d_normed, &tape.middle, &tape.mlp_inverse)?;
        device.add_assign(&mut d_middle, dy)?;
        Ok(d_middle)
    }

    /// dq, dk, dv at the outputs of the projections.
    fn attend_backward(
        &self,
        pass: &PassContext<'_>,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        d_mixed: &Tensor,
    ) -> Result<[Tensor; 3], KernelError> {
        let (device, p) = (pass.device, pass.precision);
        let AttentionTape { codes, out } = &tape.attention;
        let sequences = pass.atoms.sequences();
        let g = device.attention_backward(codes, out, d_mixed, sequences, &self.shape, None, p)?;
        let (mut dq, mut dk) = rotated(pass, g.dq, g.dk, true)?;
        if let (Some((q_norm, k_norm)), Some([q_tape, k_tape])) = (&self.qk_norm, &tape.heads) {
            dq = q_norm.backward(run, &dq, &q_tape.x, &q_tape.inverse)?;
            dk = k_norm.backward(run, &dk, &k_tape.x, &k_tape.inverse)?;
        }
        Ok([dq, dk, g.dv])
    }
}

fn rotated(
    pass: &PassContext<'_>,
    mut q: Tensor,
    mut k: Tensor,
    inverse: bool,
) -> Result<(Tensor, Tensor), KernelError> {
    let (device, positions) = (pass.device, pass.positions);
    device.rope(&mut q, pass.rope, positions, inverse)?;
    device.rope(&mut k, pass.rope, positions, inverse)?;
    Ok((q, k))
}
