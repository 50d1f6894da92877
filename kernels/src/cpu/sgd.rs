//! Gradient descent by vectors. Twin of [`crate::reference::sgd`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::sgd::{SgdStep, plain_one, step_one};

/// Elements that one task takes.
const TASK: usize = 1 << 15;

/// Updates value and momentum in place. `m` is empty where the momentum is 0.
pub fn step(cpu: &Cpu, s: &SgdStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    cpu.pool().install(|| {
        let parts = gradient.par_chunks(TASK).zip(value.par_chunks_mut(TASK));
        if s.momentum == 0.0 {
            parts.for_each(|(gradient, value)| run_plain(cpu.isa(), s, gradient, value));
        } else {
            parts
                .zip(m.par_chunks_mut(TASK))
                .for_each(|((gradient, value), m)| run(cpu.isa(), s, gradient, value, m));
        }
    });
}

per_isa! {
    fn run(s: &SgdStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) = body
}

per_isa! {
    fn run_plain(s: &SgdStep, gradient: &[f32], value: &mut [f32]) = plain_body
}

#[inline(always)]
fn body(s: &SgdStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    let state = value.iter_mut().zip(m.iter_mut());
    for (&g, (value, m)) in gradient.iter().zip(state) {
        (*value, *m) = step_one(s, g, *value, *m);
    }
}

#[inline(always)]
fn plain_body(s: &SgdStep, gradient: &[f32], value: &mut [f32]) {
    for (&g, value) in gradient.iter().zip(value) {
        *value = plain_one(s, g, *value);
    }
}
