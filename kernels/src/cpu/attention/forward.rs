//! The forward pass: blocks of keys are merged into chunks, chunks into the whole.

use rayon::prelude::*;

use super::HeadBlock;
use super::rows::{Partials, Visible, cap_scores, softmax};
use crate::coded::{Coded, Precision};
use crate::cpu::{Cpu, code, matmul};
use crate::reference::attention::{
    AttentionShape, BLOCK, CHUNK_BLOCKS, CodedKv, SequenceOut, SoftmaxEnd,
};

/// See [`crate::reference::attention::forward`].
pub fn forward(
    cpu: &Cpu,
    queries: &Coded,
    kv: &CodedKv,
    first_position: usize,
    shape: &AttentionShape,
    sinks: Option<&[f32]>,
    precision: Precision,
) -> SequenceOut {
    let (heads, dim) = (shape.heads, shape.head_dim);
    let tokens = queries.rows / heads;
    let runs = tokens.div_ceil(BLOCK);
    let task = |index: usize| {
        let (head, run) = (index % heads, index / heads);
        let start = run * BLOCK;
        let queries = HeadBlock::new(queries, heads, head, start, BLOCK.min(tokens - start));
        run_of_queries(cpu, &queries, kv, first_position + start, shape, precision)
    };
    let partials: Vec<Partials> = cpu
        .pool()
        .install(|| (0..heads * runs).into_par_iter().map(task).collect());

    let mut result = SequenceOut {
        out: vec![0.0; tokens * heads * dim],
        max: vec![0; tokens * heads],
        sum: vec![0.0; tokens * heads],
    };
    for (index, partial) in partials.iter().enumerate() {
        let (head, start) = (index % heads, index / heads * BLOCK);
        for (i, out) in partial.out.chunks_exact(dim).enumerate() {
            let row = (start + i) * heads + head;
            let softmax = (partial.max[i], partial.sum[i]);
            let end = SoftmaxEnd::new(softmax, sinks.map(|sinks| sinks[head]));
            let target = &mut result.out[row * dim..(row + 1) * dim];
            target
                .iter_mut()
                .zip(out)
                .for_each(|(target, o)| *target = o * end.keep / end.sum);
            (result.max[row], result.sum[row]) = (end.max, end.sum);
        }
    }
    result
}

fn run_of_queries(
    cpu: &Cpu,
    queries: &HeadBlock<'_>,
    kv: &CodedKv,
    first_position: usize,
    shape: &AttentionShape,
    precision: Precision,
) -> Partials {
    let end = first_position + queries.count;
    let first_block = shape.first_key(first_position) / BLOCK * BLOCK;
    let chunk_keys = BLOCK * CHUNK_BLOCKS;
    let mut total = Partials::empty(queries.count, shape.head_dim);
    for chunk in (first_block / chunk_keys * chunk_keys..end).step_by(chunk_keys) {
        let mut part = Partials::empty(queries.count, shape.head_dim);
        for block in (chunk.max(first_block)..end.min(chunk + chunk_keys)).step_by(BLOCK) {
            part.merge(&one_block(
                cpu,
                queries,
                kv,
                (first_position, block),
                shape,
                precision,
            ));
        }
        total.merge(&part);
    }
    total
}

fn one_block(
    cpu: &Cpu,
    queries: &HeadBlock<'_>,
    kv: &CodedKv,
    (first_position, block): (usize, usize),
    shape: &AttentionShape,
    precision: Precision,
) -> Partials {
    let last = first_position + queries.count;
    let count = BLOCK.min(last - block);
    let kv_head = queries.head / shape.group();
    let keys = HeadBlock::new(&kv.k, shape.kv_heads, kv_head, block, count);
    let values = HeadBlock::new(&kv.v, shape.kv_heads, kv_head, block, count);
    let visible: Vec<Visible> = (first_position..last)
        .map(|position| seen(position, block, count, shape))
        .collect();

    let mut partial = Partials::empty(queries.count, shape.head_dim);
    let mut scores = vec![0.0; queries.count * count];
    matmul::matmul_serial(
        cpu.isa(),
        queries.by_tokens(),
        keys.by_tokens(),
        &mut scores,
    );
    if let Some(cap) = shape.score_cap() {
        cap_scores(cpu.isa(), &mut scores, cap);
    }
    softmax(
        cpu.isa(),
        &mut scores,
        &visible,
        &mut partial.max,
        &mut partial.sum,
    );
    let p = code::code_rows(cpu, &scores, count, Some(&values.exp), precision);
    matmul::matmul_serial(
        cpu.isa(),
        p.by_rows(),
        values.by_features(),
        &mut partial.out,
    );
    partial
}

/// The keys of a block that the query at `position` sees.
pub(super) fn seen(position: usize, block: usize, count: usize, shape: &AttentionShape) -> Visible {
    Visible {
        first: shape.first_key(position).saturating_sub(block).min(count),
        end: (position + 1).saturating_sub(block).min(count),
    }
}
