//! A decoder layer: `x += attention(norm(x))`, `x += mlp(norm(x))`.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::ops::{Atoms, AttentionCodes, AttentionOut, AttentionShape};
use concord_kernels::tables::RopeTable;
use concord_kernels::{Device, Tensor};

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
pub(super) struct Pass<'a> {
    pub(super) device: &'a Device,
    pub(super) rope: &'a RopeTable,
    pub(super) positions: &'a [u32],
    pub(super) atoms: Atoms,
    pub(super) precision: Precision,
}

/// What the backward pass of a layer needs.
#[derive(Debug)]
pub(super) struct BlockTape {
    x: Tensor,
    attention_inverse: Vec<f32>,
    attention_input: Coded,
    qkv: [LinearTape; 3],
    heads: Option<[HeadNormTape; 2]>,
    /// One for each sequence.
    attention: Vec<(AttentionCodes, AttentionOut)>,
    o_input: Coded,
    o: LinearTape,
    middle: Tensor,
    mlp_inverse: Vec<f32>,
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
    inverse: Vec<f32>,
}

impl Block {
    /// x `[m, d]` to `[m, d]`. With a cache (layer index, cache) the tokens follow those in it.
    pub(super) fn forward(
        &self,
        pass: &Pass<'_>,
        x: Tensor,
        cache: Option<(usize, &mut KvCache)>,
    ) -> (Tensor, BlockTape) {
        let (device, p) = (pass.device, pass.precision);
        let width = x.rows_cols().1;
        let (normed, attention_inverse) = self.attention_norm.forward(device, &x);
        let attention_input = device.code(normed.data(), width, p);
        let (q, q_tape) = self.q.forward(device, &attention_input, p);
        let (k, k_tape) = self.k.forward(device, &attention_input, p);
        let (v, v_tape) = self.v.forward(device, &attention_input, p);
        let (q, k, heads) = self.head_norms(device, q, k);
        let (q, k) = rotated(pass, q, k, false);
        let (mixed, attention) = self.attend(pass, &q, &k, &v, cache);
        let o_input = device.code(&mixed, self.o.weight.cols, p);
        let (mut middle, o) = self.o.forward(device, &o_input, p);
        device.add_assign(middle.data_mut(), x.data());

        let (normed, mlp_inverse) = self.mlp_norm.forward(device, &middle);
        let mlp_input = device.code(normed.data(), width, p);
        let (g, gate_tape) = self.gate.forward(device, &mlp_input, p);
        let (u, up_tape) = self.up.forward(device, &mlp_input, p);
        let hidden = device.swiglu(&g, &u);
        let down_input = device.code(hidden.data(), self.down.weight.cols, p);
        let (mut y, down) = self.down.forward(device, &down_input, p);
        device.add_assign(y.data_mut(), middle.data());

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
        (y, tape)
    }

    fn head_norms(
        &self,
        device: &Device,
        q: Tensor,
        k: Tensor,
    ) -> (Tensor, Tensor, Option<[HeadNormTape; 2]>) {
        let Some((q_norm, k_norm)) = &self.qk_norm else {
            return (q, k, None);
        };
        let (new_q, q_inverse) = q_norm.forward(device, &q);
        let (new_k, k_inverse) = k_norm.forward(device, &k);
        let q_tape = HeadNormTape {
            x: q,
            inverse: q_inverse,
        };
        let k_tape = HeadNormTape {
            x: k,
            inverse: k_inverse,
        };
        (new_q, new_k, Some([q_tape, k_tape]))
    }

    /// Attention of each sequence on its own; the outputs one after another, `[m, q]`.
    fn attend(
        &self,
        pass: &Pass<'_>,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        cache: Option<(usize, &mut KvCache)>,
    ) -> (Vec<f32>, Vec<(AttentionCodes, AttentionOut)>) {
        let (device, shape, p) = (pass.device, &self.shape, pass.precision);
        if let Some((layer, cache)) = cache {
            let codes = device.attention_codes(q.data(), k.data(), v.data(), shape, p);
            let first = cache.tokens();
            let kv = cache.extend(layer, codes.kv);
            let out = device.attention(&codes.queries, kv, first, shape, p);
            return (out.out, Vec::new());
        }
        let len = pass.atoms.sequence_len();
        let mut mixed = Vec::with_capacity(q.data().len());
        let mut tapes = Vec::new();
        for sequence in 0..pass.atoms.sequences() {
            let rows = |x: &Tensor| {
                let width = x.rows_cols().1 * len;
                sequence * width..(sequence + 1) * width
            };
            let (q, k, v) = (&q.data()[rows(q)], &k.data()[rows(k)], &v.data()[rows(v)]);
            let codes = device.attention_codes(q, k, v, shape, p);
            let out = device.attention(&codes.queries, &codes.kv, 0, shape, p);
            mixed.extend_from_slice(&out.out);
            tapes.push((codes, out));
        }
        (mixed, tapes)
    }

    /// Gradients of what is trained, and dx `[m, d]` where it is wanted.
    pub(super) fn backward(
        &self,
        pass: &Pass<'_>,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        dy: &Tensor,
        wants_dx: bool,
    ) -> Option<Tensor> {
        let device = pass.device;
        let d_hidden = wanted(
            self.down
                .backward(run, dy, &tape.down_input, &tape.down, true),
        );
        let (dg, du) = device.swiglu_backward(&d_hidden, &tape.g, &tape.u);
        let [gate_tape, up_tape] = &tape.gate_up;
        let mut d_normed = wanted(
            self.gate
                .backward(run, &dg, &tape.mlp_input, gate_tape, true),
        );
        let from_up = wanted(self.up.backward(run, &du, &tape.mlp_input, up_tape, true));
        device.add_assign(d_normed.data_mut(), from_up.data());
        let mut d_middle = self
            .mlp_norm
            .backward(run, &d_normed, &tape.middle, &tape.mlp_inverse);
        device.add_assign(d_middle.data_mut(), dy.data());

        let d_mixed = wanted(
            self.o
                .backward(run, &d_middle, &tape.o_input, &tape.o, true),
        );
        let [dq, dk, dv] = self.attend_backward(pass, run, tape, &d_mixed);
        let [q_tape, k_tape, v_tape] = &tape.qkv;
        let input = &tape.attention_input;
        // The norm's weight, where it is trained, needs the gradient behind it even at the bottom.
        let through = wants_dx || self.attention_norm.trains;
        let from_q = self.q.backward(run, &dq, input, q_tape, through);
        let from_k = self.k.backward(run, &dk, input, k_tape, through);
        let from_v = self.v.backward(run, &dv, input, v_tape, through);
        let mut d_normed = from_q?;
        device.add_assign(d_normed.data_mut(), wanted(from_k).data());
        device.add_assign(d_normed.data_mut(), wanted(from_v).data());
        if !wants_dx {
            let inverse = &tape.attention_inverse;
            self.attention_norm
                .weight_gradient(run, &d_normed, &tape.x, inverse);
            return None;
        }
        let mut dx = self
            .attention_norm
            .backward(run, &d_normed, &tape.x, &tape.attention_inverse);
        device.add_assign(dx.data_mut(), d_middle.data());
        Some(dx)
    }

    /// dq, dk, dv at the outputs of the projections.
    fn attend_backward(
        &self,
        pass: &Pass<'_>,
        run: &mut Backward<'_>,
        tape: &BlockTape,
        d_mixed: &Tensor,
    ) -> [Tensor; 3] {
        let (device, p) = (pass.device, pass.precision);
        let len = pass.atoms.sequence_len();
        let rows = d_mixed.data().chunks_exact(len * d_mixed.rows_cols().1);
        let mut parts: [Vec<f32>; 3] = Default::default();
        for ((codes, out), d_out) in tape.attention.iter().zip(rows) {
            let g = device.attention_backward(codes, out, d_out, &self.shape, p);
            for (part, gradient) in parts.iter_mut().zip([g.dq, g.dk, g.dv]) {
                part.extend_from_slice(gradient.data());
            }
        }
        let tokens = pass.atoms.tokens();
        let [dq, dk, dv] = parts.map(|data| {
            let shape = [tokens, data.len() / tokens];
            Tensor::new(&shape, data).expect("gradients of all sequences fill the microbatch")
        });
        let (mut dq, mut dk) = rotated(pass, dq, dk, true);
        if let (Some((q_norm, k_norm)), Some([q_tape, k_tape])) = (&self.qk_norm, &tape.heads) {
            dq = q_norm.backward(run, &dq, &q_tape.x, &q_tape.inverse);
            dk = k_norm.backward(run, &dk, &k_tape.x, &k_tape.inverse);
        }
        [dq, dk, dv]
    }
}

fn rotated(pass: &Pass<'_>, mut q: Tensor, mut k: Tensor, inverse: bool) -> (Tensor, Tensor) {
    pass.device.rope(&mut q, pass.rope, pass.positions, inverse);
    pass.device.rope(&mut k, pass.rope, pass.positions, inverse);
    (q, k)
}

fn wanted(gradient: Option<Tensor>) -> Tensor {
    gradient.expect("asked for with wants_dx")
}
