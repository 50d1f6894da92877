//! Short float sums of fixed shape, as vectors of lanes. Twin of [`crate::reference::reduce`].

use crate::reference::reduce::{LANES, SEGMENT};

/// `sum(x)`, to be inlined into a function compiled for an instruction set.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut total = 0.0;
    for segment in x.chunks(SEGMENT) {
        let mut lanes = [0.0; LANES];
        let mut whole = segment.chunks_exact(LANES);
        for chunk in &mut whole {
            for i in 0..LANES {
                lanes[i] += chunk[i];
            }
        }
        for (lane, value) in lanes.iter_mut().zip(whole.remainder()) {
            *lane += value;
        }
        total += halve(lanes);
    }
    total
}

/// `sum(a * b)`, to be inlined into a function compiled for an instruction set.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut total = 0.0;
    for (a, b) in a.chunks(SEGMENT).zip(b.chunks(SEGMENT)) {
        let mut lanes = [0.0f32; LANES];
        let (mut whole_a, mut whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        for (a, b) in (&mut whole_a).zip(&mut whole_b) {
            for i in 0..LANES {
                lanes[i] = a[i].mul_add(b[i], lanes[i]);
            }
        }
        let rest = whole_a.remainder().iter().zip(whole_b.remainder());
        for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
            *lane = a.mul_add(*b, *lane);
        }
        total += halve(lanes);
    }
    total
}

#[inline(always)]
fn halve(mut lanes: [f32; LANES]) -> f32 {
    for width in [16, 8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

per_isa! {
    /// `sum(x)`.
    pub fn sum_all(x: &[f32]) -> f32 = sum
}

/// `sum(x^2)`.
#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    dot(x, x)
}

per_isa! {
    /// `sum(x^2)`.
    pub fn sum_squares(x: &[f32]) -> f32 = squares
}
