//! The choice of experts, tokens over threads. The formulas are those of
//! [`crate::reference::route`], compiled for an instruction set.

use rayon::prelude::*;

use super::Cpu;
use crate::reference::route::{Routing, backward_row, forward_row};

/// Experts and weights of every token, both `[m, chosen]`, for logits `[m, experts]`.
pub fn forward(
    cpu: &Cpu,
    logits: &[f32],
    experts: usize,
    correction: Option<&[f32]>,
    routing: &Routing,
) -> (Vec<u32>, Vec<f32>) {
    let k = routing.chosen;
    let len = logits.len() / experts * k;
    let (mut chosen, mut weights) = (vec![0; len], vec![0.0; len]);
    let rows = cpu.rows_per_task(experts * k);
    cpu.pool().install(|| {
        chosen
            .par_chunks_mut(rows * k)
            .zip(weights.par_chunks_mut(rows * k))
            .zip(logits.par_chunks(rows * experts))
            .for_each(|((chosen, weights), logits)| {
                let mut scores = vec![0.0; experts];
                let (isa, work) = (cpu.isa(), &mut scores);
                forward_rows(isa, logits, correction, routing, work, chosen, weights);
            });
    });
    (chosen, weights)
}

per_isa! {
    fn forward_rows(logits: &[f32], correction: Option<&[f32]>, routing: &Routing,
                    scores: &mut [f32], chosen: &mut [u32], weights: &mut [f32])
     = forward_body
}

#[inline(always)]
fn forward_body(
    logits: &[f32],
    correction: Option<&[f32]>,
    routing: &Routing,
    scores: &mut [f32],
    chosen: &mut [u32],
    weights: &mut [f32],
) {
    let outputs = chosen
        .chunks_exact_mut(routing.chosen)
        .zip(weights.chunks_exact_mut(routing.chosen));
    for (row, outputs) in logits.chunks_exact(scores.len()).zip(outputs) {
        forward_row(row, correction, routing, scores, outputs);
    }
}

/// The gradient of logits `[m, experts]` from that of the weights `[m, chosen]`.
pub fn backward(
    cpu: &Cpu,
    logits: &[f32],
    experts: usize,
    chosen: &[u32],
    d_weights: &[f32],
    routing: &Routing,
) -> Vec<f32> {
    let k = routing.chosen;
    let mut d_logits = vec![0.0; logits.len()];
    let rows = cpu.rows_per_task(experts);
    cpu.pool().install(|| {
        d_logits
            .par_chunks_mut(rows * experts)
            .zip(logits.par_chunks(rows * experts))
            .zip(
                chosen
                    .par_chunks(rows * k)
                    .zip(d_weights.par_chunks(rows * k)),
            )
            .for_each(|((d_logits, logits), (chosen, d_weights))| {
                let mut work = vec![0.0; experts + k];
                let (isa, work) = (cpu.isa(), &mut work);
                backward_rows(isa, logits, chosen, d_weights, routing, work, d_logits);
            });
    });
    d_logits
}

per_isa! {
    fn backward_rows(logits: &[f32], chosen: &[u32], d_weights: &[f32], routing: &Routing,
                     work: &mut [f32], d_logits: &mut [f32])
     = backward_body
}

#[inline(always)]
fn backward_body(
    logits: &[f32],
    chosen: &[u32],
    d_weights: &[f32],
    routing: &Routing,
    work: &mut [f32],
    d_logits: &mut [f32],
) {
    let k = routing.chosen;
    let experts = work.len() - k;
    let inputs = chosen.chunks_exact(k).zip(d_weights.chunks_exact(k));
    let rows = logits.chunks_exact(experts).zip(inputs);
    for ((row, inputs), out) in rows.zip(d_logits.chunks_exact_mut(experts)) {
        backward_row(row, inputs, routing, work, out);
    }
}
