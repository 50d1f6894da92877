//! Short float sums of fixed shape: NUMERICS.md, section 4.

/// Lanes of a short sum.
pub const LANES: usize = 32;
/// Elements of a segment; the sums of segments are added in order.
pub const SEGMENT: usize = 4_096;

/// `sum(x)`: element i goes to lane `i mod 32`, lanes are added by halves, segments in order.
pub fn sum(x: &[f32]) -> f32 {
    fixed_sum(x.len(), |lane, i| lane + x[i])
}

/// `sum(a * b)` in the same shape, each product fused into its lane.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    fixed_sum(a.len(), |lane, i| a[i].mul_add(b[i], lane))
}

fn fixed_sum(len: usize, add: impl Fn(f32, usize) -> f32) -> f32 {
    let mut total = 0.0;
    for start in (0..len).step_by(SEGMENT) {
        let mut lanes = [0.0; LANES];
        for i in start..len.min(start + SEGMENT) {
            let lane = &mut lanes[(i - start) % LANES];
            *lane = add(*lane, i);
        }
        total += halve(lanes);
    }
    total
}

fn halve(mut lanes: [f32; LANES]) -> f32 {
    for width in [16, 8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}
