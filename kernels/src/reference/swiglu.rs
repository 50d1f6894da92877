//! SwiGLU (Shazeer 2020): `y = silu(g) * u`, `silu(g) = g * s`, `s = 1 / (1 + exp(-g))`.

use crate::math::exp;

/// One element of y.
#[inline(always)]
pub fn forward_one(g: f32, u: f32) -> f32 {
    (g * sigmoid(g)) * u
}

/// One element of (dg, du): `du = dy * (g * s)`, `dg = (dy * u) * (s * fma(g, 1 - s, 1))`.
#[inline(always)]
pub fn backward_one(dy: f32, g: f32, u: f32) -> (f32, f32) {
    let s = sigmoid(g);
    ((dy * u) * (s * g.mul_add(1.0 - s, 1.0)), dy * (g * s))
}

#[inline(always)]
fn sigmoid(g: f32) -> f32 {
    1.0 / (1.0 + exp(-g))
}

/// y, of the shape of g and u.
pub fn forward(g: &[f32], u: &[f32]) -> Vec<f32> {
    g.iter().zip(u).map(|(&g, &u)| forward_one(g, u)).collect()
}

/// (dg, du), of the shape of dy.
pub fn backward(dy: &[f32], g: &[f32], u: &[f32]) -> (Vec<f32>, Vec<f32>) {
    dy.iter()
        .zip(g)
        .zip(u)
        .map(|((&dy, &g), &u)| backward_one(dy, g, u))
        .unzip()
}
