//! Operations on one element after another, and the canonical form before elements are hashed.

use crate::KernelError;
use crate::tensor::first_not_finite;

/// `a += b`.
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

/// `a = fma(factor, b, a)`.
pub fn scaled_add_assign(a: &mut [f32], factor: f32, b: &[f32]) {
    a.iter_mut()
        .zip(b)
        .for_each(|(a, b)| *a = factor.mul_add(*b, *a));
}

/// `factor * x`.
pub fn scaled(x: &[f32], factor: f32) -> Vec<f32> {
    x.iter().map(|v| v * factor).collect()
}

/// `a * b`.
pub fn products(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// Every row of x `[m, n]` times `factors` `[n]`.
pub fn scaled_columns(x: &[f32], factors: &[f32]) -> Vec<f32> {
    let rows = x.chunks_exact(factors.len().max(1));
    rows.flat_map(|row| products(row, factors)).collect()
}

/// Adds `bias` `[n]` to every row of `x` `[m, n]`.
pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    x.chunks_exact_mut(bias.len())
        .for_each(|row| add_assign(row, bias));
}

/// Gradient of a bias `[cols]` over the rows of one atom, in order.
pub fn bias_gradient(dy: &[f32], cols: usize) -> Vec<f32> {
    let mut sum = vec![0.0; cols];
    dy.chunks_exact(cols)
        .for_each(|row| add_assign(&mut sum, row));
    sum
}

/// Turns every -0 into +0.
///
/// # Errors
/// [`KernelError::NotFinite`] with `name` and the first NaN or infinity.
pub fn canonicalise(name: &str, elements: &mut [f32]) -> Result<(), KernelError> {
    let mut all_finite = true;
    for value in elements.iter_mut() {
        all_finite &= value.is_finite();
        *value += 0.0;
    }
    if all_finite {
        Ok(())
    } else {
        Err(first_not_finite(name, elements))
    }
}
