//! Soft caps by vectors. Twin of [`crate::reference::soft_cap`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::soft_cap::{capped, slope_at};

/// Elements that one task takes.
const TASK: usize = 1 << 14;

/// y, of the shape of x.
pub fn forward(cpu: &Cpu, x: &[f32], cap: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    cpu.pool().install(|| {
        y.par_chunks_mut(TASK)
            .zip(x.par_chunks(TASK))
            .for_each(|(y, x)| forward_run(cpu.isa(), x, cap, y));
    });
    y
}

per_isa! {
    fn forward_run(x: &[f32], cap: f32, y: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body(x: &[f32], cap: f32, y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = capped(x, cap);
    }
}

/// dx, of the shape of dy.
pub fn backward(cpu: &Cpu, dy: &[f32], y: &[f32], cap: f32) -> Vec<f32> {
    let mut dx = vec![0.0; dy.len()];
    cpu.pool().install(|| {
        dx.par_chunks_mut(TASK)
            .zip(dy.par_chunks(TASK).zip(y.par_chunks(TASK)))
            .for_each(|(dx, (dy, y))| backward_run(cpu.isa(), dy, y, cap, dx));
    });
    dx
}

per_isa! {
    fn backward_run(dy: &[f32], y: &[f32], cap: f32, dx: &mut [f32]) = backward_body
}

#[inline(always)]
fn backward_body(dy: &[f32], y: &[f32], cap: f32, dx: &mut [f32]) {
    for (dx, (dy, &y)) in dx.iter_mut().zip(dy.iter().zip(y)) {
        *dx = dy * slope_at(y, cap);
    }
}
