//! AdamW with moments in 8 bits, by vectors and threads. Twin of [`crate::reference::adamw_8bit`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::adamw::AdamStep;
use crate::reference::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK, step_block};

/// Blocks that one task takes.
const TASK: usize = 64;

/// Updates values and moments in place.
pub fn step(
    cpu: &Cpu,
    s: &AdamStep,
    gradient: &[f32],
    value: &mut [f32],
    first: &mut [u32],
    second: &mut [u32],
) {
    cpu.pool().install(|| {
        gradient
            .par_chunks(TASK * MOMENT_BLOCK)
            .zip(value.par_chunks_mut(TASK * MOMENT_BLOCK))
            .zip(first.par_chunks_mut(TASK * BLOCK_WORDS))
            .zip(second.par_chunks_mut(TASK * BLOCK_WORDS))
            .for_each(|(((gradient, value), first), second)| {
                run(cpu.isa(), s, gradient, value, first, second);
            });
    });
}

per_isa! {
    fn run(
        s: &AdamStep,
        gradient: &[f32],
        value: &mut [f32],
        first: &mut [u32],
        second: &mut [u32],
    ) = body
}

#[inline(always)]
fn body(s: &AdamStep, gradient: &[f32], value: &mut [f32], first: &mut [u32], second: &mut [u32]) {
    let moments = first
        .chunks_mut(BLOCK_WORDS)
        .zip(second.chunks_mut(BLOCK_WORDS));
    let values = gradient
        .chunks(MOMENT_BLOCK)
        .zip(value.chunks_mut(MOMENT_BLOCK));
    for ((gradient, value), (first, second)) in values.zip(moments) {
        step_block(s, gradient, value, first, second);
    }
}
