//! Activations by vectors. Twin of [`crate::reference::activation`].

use rayon::prelude::*;

use super::Cpu;
use crate::reference::activation::Activation;

/// Elements that one task takes.
const TASK: usize = 1 << 14;

/// Calls a body with each activation as a constant, so that each is compiled to a loop of its own,
/// without a choice at each element.
macro_rules! by_kind {
    ($act:expr, $body:ident($($arg:expr),*)) => {
        match $act {
            Activation::Silu => $body(Activation::Silu, $($arg),*),
            Activation::Gelu => $body(Activation::Gelu, $($arg),*),
            Activation::GeluTanh => $body(Activation::GeluTanh, $($arg),*),
            Activation::QuickGelu => $body(Activation::QuickGelu, $($arg),*),
            Activation::Relu => $body(Activation::Relu, $($arg),*),
            Activation::ReluSquared => $body(Activation::ReluSquared, $($arg),*),
            Activation::ClampedSwiglu { alpha, limit } => {
                $body(Activation::ClampedSwiglu { alpha, limit }, $($arg),*)
            }
        }
    };
}

/// `act(g) * u`, of the shape of g and u.
pub fn gated(cpu: &Cpu, act: Activation, g: &[f32], u: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; g.len()];
    cpu.pool().install(|| {
        y.par_chunks_mut(TASK)
            .zip(g.par_chunks(TASK))
            .zip(u.par_chunks(TASK))
            .for_each(|((y, g), u)| gated_run(cpu.isa(), act, g, u, y));
    });
    y
}

per_isa! {
    fn gated_run(act: Activation, g: &[f32], u: &[f32], y: &mut [f32]) = gated_body
}

#[inline(always)]
fn gated_body(act: Activation, g: &[f32], u: &[f32], y: &mut [f32]) {
    by_kind!(act, gated_of_kind(g, u, y));
}

#[inline(always)]
fn gated_of_kind(act: Activation, g: &[f32], u: &[f32], y: &mut [f32]) {
    for ((y, &g), &u) in y.iter_mut().zip(g).zip(u) {
        *y = act.gated_one(g, u);
    }
}

/// (dg, du), of the shape of dy.
pub fn gated_backward(
    cpu: &Cpu,
    act: Activation,
    dy: &[f32],
    g: &[f32],
    u: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut dg, mut du) = (vec![0.0; g.len()], vec![0.0; g.len()]);
    cpu.pool().install(|| {
        dg.par_chunks_mut(TASK)
            .zip(du.par_chunks_mut(TASK))
            .zip(
                dy.par_chunks(TASK)
                    .zip(g.par_chunks(TASK))
                    .zip(u.par_chunks(TASK)),
            )
            .for_each(|(out, ((dy, g), u))| gated_backward_run(cpu.isa(), act, dy, (g, u), out));
    });
    (dg, du)
}

per_isa! {
    fn gated_backward_run(act: Activation, dy: &[f32], inputs: (&[f32], &[f32]),
                          out: (&mut [f32], &mut [f32])) = gated_backward_body
}

#[inline(always)]
fn gated_backward_body(
    act: Activation,
    dy: &[f32],
    (g, u): (&[f32], &[f32]),
    (dg, du): (&mut [f32], &mut [f32]),
) {
    by_kind!(act, gated_backward_of_kind(dy, g, u, dg, du));
}

#[inline(always)]
fn gated_backward_of_kind(
    act: Activation,
    dy: &[f32],
    g: &[f32],
    u: &[f32],
    dg: &mut [f32],
    du: &mut [f32],
) {
    let outputs = dg.iter_mut().zip(du.iter_mut());
    for ((dg, du), ((&dy, &g), &u)) in outputs.zip(dy.iter().zip(g).zip(u)) {
        (*dg, *du) = act.gated_backward_one(dy, g, u);
    }
}

/// `act(x)`, of the shape of x.
pub fn forward(cpu: &Cpu, act: Activation, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    cpu.pool().install(|| {
        y.par_chunks_mut(TASK)
            .zip(x.par_chunks(TASK))
            .for_each(|(y, x)| forward_run(cpu.isa(), act, x, y));
    });
    y
}

per_isa! {
    fn forward_run(act: Activation, x: &[f32], y: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body(act: Activation, x: &[f32], y: &mut [f32]) {
    by_kind!(act, forward_of_kind(x, y));
}

#[inline(always)]
fn forward_of_kind(act: Activation, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = act.at(x).0;
    }
}

/// `dx = dy * slope(x)`, of the shape of dy.
pub fn backward(cpu: &Cpu, act: Activation, dy: &[f32], x: &[f32]) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    cpu.pool().install(|| {
        dx.par_chunks_mut(TASK)
            .zip(dy.par_chunks(TASK))
            .zip(x.par_chunks(TASK))
            .for_each(|((dx, dy), x)| backward_run(cpu.isa(), act, dy, x, dx));
    });
    dx
}

per_isa! {
    fn backward_run(act: Activation, dy: &[f32], x: &[f32], dx: &mut [f32]) = backward_body
}

#[inline(always)]
fn backward_body(act: Activation, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    by_kind!(act, backward_of_kind(dy, x, dx));
}

#[inline(always)]
fn backward_of_kind(act: Activation, dy: &[f32], x: &[f32], dx: &mut [f32]) {
    for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(x) {
        *dx = dy * act.at(x).1;
    }
}
