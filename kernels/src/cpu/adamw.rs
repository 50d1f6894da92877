//! AdamW by vectors. Twin of [`crate::reference::adamw`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::adamw::{AdamStep, step_one};

/// Elements that one task takes.
const TASK: usize = 1 << 15;

/// Updates values and moments in place.
pub fn step(
    cpu: &Cpu,
    s: &AdamStep,
    gradient: &[f32],
    value: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    cpu.pool().install(|| {
        gradient
            .par_chunks(TASK)
            .zip(value.par_chunks_mut(TASK))
            .zip(m.par_chunks_mut(TASK))
            .zip(v.par_chunks_mut(TASK))
            .for_each(|(((gradient, value), m), v)| run(cpu.isa(), s, gradient, value, m, v));
    });
}

per_isa! {
    fn run(s: &AdamStep, gradient: &[f32], value: &mut [f32], m: &mut [f32], v: &mut [f32]) = body
}

#[inline(always)]
fn body(s: &AdamStep, gradient: &[f32], value: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let state = value.iter_mut().zip(m.iter_mut()).zip(v.iter_mut());
    for (&g, ((value, m), v)) in gradient.iter().zip(state) {
        (*value, *m, *v) = step_one(s, g, *value, *m, *v);
    }
}
