//! The one line that defines every product: `round_f32(2^(ea + eb) * sum(qa * qb))`.

use crate::coded::Operand;
use crate::math::pow2_f64;

/// `out[m, n] = round_f32(2^(ea[m] + eb[n]) * sum_k qa[m, k] * qb[n, k])`, the sum exact in i64.
///
/// # Panics
/// Where the depths of `a` and `b` differ.
pub fn matmul(a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    assert_eq!(a.depth, b.depth, "the summed axes differ");
    let mut out = Vec::with_capacity(a.rows * b.rows);
    for m in 0..a.rows {
        for n in 0..b.rows {
            let sum: i64 = (0..a.depth).map(|k| code(&a, m, k) * code(&b, n, k)).sum();
            out.push((sum as f64 * scale(&a, m) * scale(&b, n)) as f32);
        }
    }
    out
}

/// `sum_k qa[m, k] * qb[n, k]`, `[a.rows, b.rows]`: exact.
pub fn sums(a: Operand<'_>, b: Operand<'_>) -> Vec<i64> {
    let sum = |m: usize, n: usize| (0..a.depth).map(|k| code(&a, m, k) * code(&b, n, k)).sum();
    (0..a.rows)
        .flat_map(|m| (0..b.rows).map(move |n| (m, n)))
        .map(|(m, n)| sum(m, n))
        .collect()
}

fn code(operand: &Operand<'_>, row: usize, depth: usize) -> i64 {
    i64::from(operand.q[row * operand.row_stride + depth * operand.depth_stride])
}

fn scale(operand: &Operand<'_>, row: usize) -> f64 {
    operand.exp.get(row).map_or(1.0, |&e| pow2_f64(e))
}
