//! Lion with its momentum in 8 bits, by vectors and threads. Twin of
//! [`crate::reference::lion_8bit`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK};
use crate::reference::lion::LionStep;
use crate::reference::lion_8bit::step_block;

/// Blocks that one task takes.
const TASK: usize = 64;

/// Updates values and momentum in place.
pub fn step(cpu: &Cpu, s: &LionStep, gradient: &[f32], value: &mut [f32], momentum: &mut [u32]) {
    cpu.pool().install(|| {
        gradient
            .par_chunks(TASK * MOMENT_BLOCK)
            .zip(value.par_chunks_mut(TASK * MOMENT_BLOCK))
            .zip(momentum.par_chunks_mut(TASK * BLOCK_WORDS))
            .for_each(|((gradient, value), momentum)| {
                run(cpu.isa(), s, gradient, value, momentum);
            });
    });
}

per_isa! {
    fn run(s: &LionStep, gradient: &[f32], value: &mut [f32], momentum: &mut [u32]) = body
}

#[inline(always)]
fn body(s: &LionStep, gradient: &[f32], value: &mut [f32], momentum: &mut [u32]) {
    let values = gradient
        .chunks(MOMENT_BLOCK)
        .zip(value.chunks_mut(MOMENT_BLOCK));
    for ((gradient, value), momentum) in values.zip(momentum.chunks_mut(BLOCK_WORDS)) {
        step_block(s, gradient, value, momentum);
    }
}
