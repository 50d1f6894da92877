//! Soft caps (Gemma 2): `y = cap * tanh(x / cap)`, whose slope is `1 - (y / cap)^2`.

use crate::math::tanh;

/// One element of y.
#[inline(always)]
pub(crate) fn capped(x: f32, cap: f32) -> f32 {
    cap * tanh(x / cap)
}

/// The slope at the output y: `fma(-t, t, 1)`, `t = y / cap`.
#[inline(always)]
pub(crate) fn slope_at(y: f32, cap: f32) -> f32 {
    let t = y / cap;
    (-t).mul_add(t, 1.0)
}

/// y, of the shape of x.
pub fn forward(x: &[f32], cap: f32) -> Vec<f32> {
    x.iter().map(|&x| capped(x, cap)).collect()
}

/// `dx = dy * slope`, of the shape of dy, from the output y.
pub fn backward(dy: &[f32], y: &[f32], cap: f32) -> Vec<f32> {
    let pairs = dy.iter().zip(y);
    pairs.map(|(dy, &y)| dy * slope_at(y, cap)).collect()
}

/// The slope at each row's target among capped logits y `[rows, vocab]`: `[rows]`, 0 without one.
pub fn at_targets(y: &[f32], vocab: usize, targets: &[Option<u32>], cap: f32) -> Vec<f32> {
    let rows = y.chunks_exact(vocab).zip(targets);
    rows.map(|(row, target)| target.map_or(0.0, |target| slope_at(row[target as usize], cap)))
        .collect()
}
