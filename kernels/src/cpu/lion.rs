//! Lion by vectors. Twin of [`crate::reference::lion`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::lion::{LionStep, step_one};

/// Elements that one task takes.
const TASK: usize = 1 << 15;

/// Updates value and momentum in place.
pub fn step(cpu: &Cpu, s: &LionStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    cpu.pool().install(|| {
        gradient
            .par_chunks(TASK)
            .zip(value.par_chunks_mut(TASK))
            .zip(m.par_chunks_mut(TASK))
            .for_each(|((gradient, value), m)| run(cpu.isa(), s, gradient, value, m));
    });
}

per_isa! {
    fn run(s: &LionStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) = body
}

#[inline(always)]
fn body(s: &LionStep, gradient: &[f32], value: &mut [f32], m: &mut [f32]) {
    let state = value.iter_mut().zip(m.iter_mut());
    for (&g, (value, m)) in gradient.iter().zip(state) {
        (*value, *m) = step_one(s, g, *value, *m);
    }
}
