//! SwiGLU by vectors. Twin of [`crate::reference::swiglu`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::swiglu::{backward_one, forward_one};

/// Elements that one task takes.
const TASK: usize = 1 << 14;

/// y, of the shape of g and u.
pub fn forward(cpu: &Cpu, g: &[f32], u: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; g.len()];
    cpu.pool().install(|| {
        y.par_chunks_mut(TASK)
            .zip(g.par_chunks(TASK))
            .zip(u.par_chunks(TASK))
            .for_each(|((y, g), u)| forward_run(cpu.isa(), g, u, y));
    });
    y
}

per_isa! {
    fn forward_run(g: &[f32], u: &[f32], y: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body(g: &[f32], u: &[f32], y: &mut [f32]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        *y = forward_one(g, u);
    }
}

/// (dg, du), of the shape of dy.
pub fn backward(cpu: &Cpu, dy: &[f32], g: &[f32], u: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dg, mut du) = (vec![0.0; g.len()], vec![0.0; g.len()]);
    cpu.pool().install(|| {
        dg.par_chunks_mut(TASK)
            .zip(du.par_chunks_mut(TASK))
            .zip(
                dy.par_chunks(TASK)
                    .zip(g.par_chunks(TASK))
                    .zip(u.par_chunks(TASK)),
            )
            .for_each(|((dg, du), ((dy, g), u))| backward_run(cpu.isa(), dy, g, u, dg, du));
    });
    (dg, du)
}

per_isa! {
    fn backward_run(dy: &[f32], g: &[f32], u: &[f32], dg: &mut [f32], du: &mut [f32])
     = backward_body
}

#[inline(always)]
fn backward_body(dy: &[f32], g: &[f32], u: &[f32], dg: &mut [f32], du: &mut [f32]) {
    let outputs = dg.iter_mut().zip(du.iter_mut());
    for ((dg, du), ((&dy, &g), &u)) in outputs.zip(dy.iter().zip(g).zip(u)) {
        (*dg, *du) = backward_one(dy, g, u);
    }
}
