//! Sums and scaled sums by vectors and threads, and the elementary functions of [`crate::math`]
//! over slices.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::Cpu;
use crate::math;

/// Elements that a thread takes at a time: some of the second cache, and worth waking it.
const CHUNK: usize = 1 << 15;

/// `a += b`.
pub fn add_assign(cpu: &Cpu, a: &mut [f32], b: &[f32]) {
    by_chunks(cpu, a, b, |a, b| add_run(cpu.isa(), a, b));
}

/// `a = fma(factor, b, a)`.
pub fn scaled_add_assign(cpu: &Cpu, a: &mut [f32], factor: f32, b: &[f32]) {
    by_chunks(cpu, a, b, |a, b| scaled_add_run(cpu.isa(), a, factor, b));
}

/// `factor * x`.
pub fn scaled(cpu: &Cpu, x: &[f32], factor: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    let room = &mut out.spare_capacity_mut()[..x.len()];
    by_chunks(cpu, room, x, |out, x| scaled_run(cpu.isa(), out, x, factor));
    // SAFETY: every element has been written.
    unsafe { out.set_len(x.len()) };
    out
}

/// Runs `work` on chunks of both, side by side where there is enough.
fn by_chunks<T: Send>(cpu: &Cpu, a: &mut [T], b: &[f32], work: impl Fn(&mut [T], &[f32]) + Sync) {
    if cpu.threads() == 1 || a.len() < 2 * CHUNK {
        return work(a, b);
    }
    cpu.pool().install(|| {
        a.par_chunks_mut(CHUNK)
            .zip(b.par_chunks(CHUNK))
            .for_each(|(a, b)| work(a, b));
    });
}

per_isa! {
    fn add_run(a: &mut [f32], b: &[f32]) = add_body
}

per_isa! {
    fn scaled_add_run(a: &mut [f32], factor: f32, b: &[f32]) = scaled_add_body
}

per_isa! {
    fn scaled_run(out: &mut [MaybeUninit<f32>], x: &[f32], factor: f32) = scaled_body
}

per_isa! {
    /// `x = 2^x` for each element.
    pub fn exp2_assign(x: &mut [f32]) = exp2_assign_body
}

per_isa! {
    /// `x = e^x` for each element.
    pub fn exp_assign(x: &mut [f32]) = exp_assign_body
}

per_isa! {
    /// `x = ln(x)` for each element.
    pub fn ln_assign(x: &mut [f32]) = ln_assign_body
}

per_isa! {
    /// `x = tanh(x)` for each element.
    pub fn tanh_assign(x: &mut [f32]) = tanh_assign_body
}

per_isa! {
    /// `x = erf(x)` for each element.
    pub fn erf_assign(x: &mut [f32]) = erf_assign_body
}

#[inline(always)]
fn add_body(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

#[inline(always)]
fn scaled_body(out: &mut [MaybeUninit<f32>], x: &[f32], factor: f32) {
    out.iter_mut().zip(x).for_each(|(out, x)| {
        out.write(factor * x);
    });
}

#[inline(always)]
fn scaled_add_body(a: &mut [f32], factor: f32, b: &[f32]) {
    a.iter_mut()
        .zip(b)
        .for_each(|(a, b)| *a = factor.mul_add(*b, *a));
}

#[inline(always)]
fn exp2_assign_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp2(*x));
}

#[inline(always)]
fn exp_assign_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::exp(*x));
}

#[inline(always)]
fn ln_assign_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::ln(*x));
}

#[inline(always)]
fn tanh_assign_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::tanh(*x));
}

#[inline(always)]
fn erf_assign_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::erf(*x));
}
