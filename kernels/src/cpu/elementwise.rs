//! Scaled sums by vectors.

per_isa! {
    /// `a = fma(factor, b, a)`.
    pub fn scaled_add_assign(a: &mut [f32], factor: f32, b: &[f32]) = scaled_add_assign_body
}

#[inline(always)]
fn scaled_add_assign_body(a: &mut [f32], factor: f32, b: &[f32]) {
    a.iter_mut()
        .zip(b)
        .for_each(|(a, b)| *a = factor.mul_add(*b, *a));
}
