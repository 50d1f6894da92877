//! Scaled sums by vectors, and the elementary functions of [`crate::math`] over slices.

use crate::math;

per_isa! {
    /// `a = fma(factor, b, a)`.
    pub fn scaled_add_assign(a: &mut [f32], factor: f32, b: &[f32]) = scaled_add_assign_body
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
fn scaled_add_assign_body(a: &mut [f32], factor: f32, b: &[f32]) {
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
