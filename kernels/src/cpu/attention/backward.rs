//! The backward pass: heads that share keys are one task.

use rayon::prelude::*;

use super::HeadBlock;
use super::forward::seen;
use super::rows::{RowState, Visible, capped_score_gradients, deltas, score_gradients};
use crate::coded::Precision;
use crate::cpu::{Cpu, code, matmul};
use crate::math::LN_2;
use crate::reference::attention::{AttentionShape, BLOCK, BackwardInput, SequenceGradients};

/// See [`crate::reference::attention::backward`].
pub fn backward(
    cpu: &Cpu,
    input: BackwardInput<'_>,
    shape: &AttentionShape,
    precision: Precision,
) -> SequenceGradients {
    let tokens = input.queries.rows / shape.heads;
    let mut delta = vec![0.0; input.queries.rows];
    deltas(
        cpu.isa(),
        input.d_out,
        input.out,
        shape.head_dim,
        &mut delta,
    );
    let group = |kv_head: usize| Group::new(cpu, input, shape, precision, &delta, kv_head).run();
    let groups: Vec<SequenceGradients> = cpu
        .pool()
        .install(|| (0..shape.kv_heads).into_par_iter().map(group).collect());
    let gather = |heads: usize, of: fn(&SequenceGradients) -> &[f32], factor: f32| {
        let parts: Vec<&[f32]> = groups.iter().map(of).collect();
        interleave(
            &parts,
            tokens,
            heads / shape.kv_heads * shape.head_dim,
            factor,
        )
    };
    SequenceGradients {
        dq: gather(shape.heads, |g| &g.dq, shape.scale),
        dk: gather(shape.kv_heads, |g| &g.dk, LN_2),
        dv: gather(shape.kv_heads, |g| &g.dv, 1.0),
        sink_terms: input.sink_terms(&delta),
    }
}

/// Puts `[tokens, width]` parts side by side, times `factor`.
fn interleave(parts: &[&[f32]], tokens: usize, width: usize, factor: f32) -> Vec<f32> {
    let mut whole = Vec::with_capacity(tokens * width * parts.len());
    for token in 0..tokens {
        for part in parts {
            whole.extend(
                part[token * width..(token + 1) * width]
                    .iter()
                    .map(|v| v * factor),
            );
        }
    }
    whole
}

/// The query heads that share one key head.
struct Group<'a> {
    cpu: &'a Cpu,
    input: BackwardInput<'a>,
    shape: &'a AttentionShape,
    precision: Precision,
    delta: &'a [f32],
    kv_head: usize,
    tokens: usize,
    /// Gradients of this group alone, unscaled, without those of sinks.
    gradients: SequenceGradients,
}

impl<'a> Group<'a> {
    fn new(
        cpu: &'a Cpu,
        input: BackwardInput<'a>,
        shape: &'a AttentionShape,
        precision: Precision,
        delta: &'a [f32],
        kv_head: usize,
    ) -> Self {
        let tokens = input.queries.rows / shape.heads;
        let gradients = SequenceGradients {
            dq: vec![0.0; tokens * shape.group() * shape.head_dim],
            dk: vec![0.0; tokens * shape.head_dim],
            dv: vec![0.0; tokens * shape.head_dim],
            sink_terms: Vec::new(),
        };
        Self {
            cpu,
            input,
            shape,
            precision,
            delta,
            kv_head,
            tokens,
            gradients,
        }
    }

    fn run(mut self) -> SequenceGradients {
        for member in 0..self.shape.group() {
            for start in (0..self.tokens).step_by(BLOCK) {
                self.run_of_queries(member, start, BLOCK.min(self.tokens - start));
            }
        }
        self.gradients
    }

    fn run_of_queries(&mut self, member: usize, start: usize, count: usize) {
        let shape = self.shape;
        let head = self.kv_head * shape.group() + member;
        let queries = HeadBlock::new(self.input.queries, shape.heads, head, start, count);
        let d_out = HeadBlock::new(self.input.d_out_coded, shape.heads, head, start, count);
        let state = |token: usize| {
            let row = token * shape.heads + head;
            RowState {
                max: self.input.max[row] as f32,
                inverse: 1.0 / self.input.sum[row],
                delta: self.delta[row],
            }
        };
        let states: Vec<RowState> = (start..start + count).map(state).collect();
        let first_block = shape.first_key(start) / BLOCK * BLOCK;
        for block in (first_block..start + count).step_by(BLOCK) {
            self.one_block(member, &queries, &d_out, &states, block);
        }
    }

    fn one_block(
        &mut self,
        member: usize,
        queries: &HeadBlock<'_>,
        d_out: &HeadBlock<'_>,
        states: &[RowState],
        block: usize,
    ) {
        let (isa, shape, dim) = (self.cpu.isa(), self.shape, self.shape.head_dim);
        let end = queries.start + queries.count;
        let count = BLOCK.min(end - block);
        let kv = self.input.kv;
        let keys = HeadBlock::new(&kv.k, shape.kv_heads, self.kv_head, block, count);
        let values = HeadBlock::new(&kv.v, shape.kv_heads, self.kv_head, block, count);
        let visible: Vec<Visible> = (queries.start..end)
            .map(|position| seen(position, block, count, shape))
            .collect();

        let mut p = vec![0.0; queries.count * count];
        let mut ds = vec![0.0; queries.count * count];
        matmul::matmul_serial(isa, queries.by_tokens(), keys.by_tokens(), &mut p);
        matmul::matmul_serial(isa, d_out.by_tokens(), values.by_tokens(), &mut ds);
        match shape.score_cap() {
            None => score_gradients(isa, &mut p, &mut ds, &visible, states),
            Some(cap) => capped_score_gradients(isa, &mut p, &mut ds, &visible, states, cap),
        }

        let mut product = vec![0.0; queries.count.max(count) * dim];
        let by_query = code::code_rows(self.cpu, &ds, count, Some(&keys.exp), self.precision);
        let dq = &mut product[..queries.count * dim];
        matmul::matmul_serial(isa, by_query.by_rows(), keys.by_features(), dq);
        let width = shape.group() * dim;
        for (i, row) in dq.chunks_exact(dim).enumerate() {
            let at = (queries.start + i) * width + member * dim;
            add(&mut self.gradients.dq[at..at + dim], row);
        }
        let by_key = code::code_cols(self.cpu, &ds, count, Some(&queries.exp), self.precision);
        let dk = &mut product[..count * dim];
        matmul::matmul_serial(isa, by_key.by_rows(), queries.by_features(), dk);
        add(
            &mut self.gradients.dk[block * dim..(block + count) * dim],
            dk,
        );
        let by_key = code::code_cols(self.cpu, &p, count, Some(&d_out.exp), self.precision);
        let dv = &mut product[..count * dim];
        matmul::matmul_serial(isa, by_key.by_rows(), d_out.by_features(), dv);
        add(
            &mut self.gradients.dv[block * dim..(block + count) * dim],
            dv,
        );
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
}
