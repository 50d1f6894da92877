//! Rows of experts: gathers the rows of an expert's tokens, and adds the results to the tokens.

use super::reduce;
use crate::coded::Coded;

/// The rows of `x` at `rows`, codes and exponents. For codes on the host.
///
/// # Panics
/// For a row that x lacks.
pub fn gather(x: &Coded, rows: &[u32]) -> Coded {
    let (mut q, mut exp) = (Vec::with_capacity(rows.len() * x.cols), Vec::new());
    let (codes, exps) = (x.q.data(), x.exp.data());
    for &row in rows {
        let at = row as usize * x.cols;
        q.extend_from_slice(&codes[at..at + x.cols]);
        exp.push(exps[row as usize]);
    }
    Coded {
        rows: rows.len(),
        cols: x.cols,
        precision: x.precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// `y = fma(weight, row, y)` over the rows of each token, in their order: y `[m, cols]`, rows
/// `[m * k, cols]`; slots `[m, k]` are the rows of each token; weights `[m, k]`, or all 1.
pub fn combine(y: &mut [f32], cols: usize, rows: &[f32], slots: &[u32], weights: Option<&[f32]>) {
    let per_token = slots.len() / (y.len() / cols);
    for (token, y) in y.chunks_exact_mut(cols).enumerate() {
        for at in token * per_token..(token + 1) * per_token {
            let weight = weights.map_or(1.0, |w| w[at]);
            let start = slots[at] as usize * cols;
            let row = &rows[start..start + cols];
            y.iter_mut()
                .zip(row)
                .for_each(|(y, row)| *y = weight.mul_add(*row, *y));
        }
    }
}

/// Gradients of rows `[m * k, cols]` and weights `[m, k]` from dy `[m, cols]`: `weight * dy` and
/// `sum(dy * row)`.
pub fn combine_backward(
    dy: &[f32],
    cols: usize,
    rows: &[f32],
    slots: &[u32],
    weights: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut d_rows, mut d_weights) = (vec![0.0; rows.len()], vec![0.0; weights.len()]);
    let per_token = slots.len() / (dy.len() / cols);
    for (token, dy) in dy.chunks_exact(cols).enumerate() {
        for at in token * per_token..(token + 1) * per_token {
            let start = slots[at] as usize * cols;
            let d_row = &mut d_rows[start..start + cols];
            d_row
                .iter_mut()
                .zip(dy)
                .for_each(|(d, dy)| *d = weights[at] * dy);
            d_weights[at] = reduce::dot(dy, &rows[start..start + cols]);
        }
    }
    (d_rows, d_weights)
}
