//! Rows of experts added to their tokens, by vectors. Twin of [`crate::reference::experts`].

use rayon::prelude::*;

use super::{Cpu, reduce};

/// `y = fma(weight, row, y)` over the rows of each token, in their order: y `[m, cols]`, rows
/// `[m * k, cols]`, slots `[m, k]`, weights `[m, k]` or all 1.
pub fn combine(
    cpu: &Cpu,
    y: &mut [f32],
    cols: usize,
    rows: &[f32],
    slots: &[u32],
    weights: Option<&[f32]>,
) {
    let per_token = slots.len() / (y.len() / cols);
    let tokens = cpu.rows_per_task(cols * per_token);
    cpu.pool().install(|| {
        y.par_chunks_mut(tokens * cols)
            .enumerate()
            .for_each(|(task, y)| {
                let first = task * tokens * per_token;
                let count = y.len() / cols * per_token;
                let slots = &slots[first..first + count];
                let weights = weights.map(|w| &w[first..first + count]);
                combine_tokens(cpu.isa(), y, cols, rows, slots, weights);
            });
    });
}

per_isa! {
    fn combine_tokens(y: &mut [f32], cols: usize, rows: &[f32], slots: &[u32],
                      weights: Option<&[f32]>)
     = combine_body
}

#[inline(always)]
fn combine_body(y: &mut [f32], cols: usize, rows: &[f32], slots: &[u32], weights: Option<&[f32]>) {
    let per_token = slots.len() / (y.len() / cols);
    for (token, y) in y.chunks_exact_mut(cols).enumerate() {
        for at in token * per_token..(token + 1) * per_token {
            let weight = weights.map_or(1.0, |w| w[at]);
            let start = slots[at] as usize * cols;
            for (y, row) in y.iter_mut().zip(&rows[start..start + cols]) {
                *y = weight.mul_add(*row, *y);
            }
        }
    }
}

/// Gradients of rows `[m * k, cols]` and weights `[m, k]` from dy `[m, cols]`.
pub fn combine_backward(
    cpu: &Cpu,
    dy: &[f32],
    cols: usize,
    rows: &[f32],
    slots: &[u32],
    weights: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut d_rows, mut d_weights) = (vec![0.0; rows.len()], vec![0.0; weights.len()]);
    let mut places = vec![0; slots.len()];
    for (place, &slot) in slots.iter().enumerate() {
        places[slot as usize] = place;
    }
    let per_token = slots.len() / (dy.len() / cols);
    let mut d_weights_of_rows = vec![0.0; rows.len() / cols];
    let count = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        d_rows
            .par_chunks_mut(count * cols)
            .zip(d_weights_of_rows.par_chunks_mut(count))
            .zip(rows.par_chunks(count * cols).zip(places.par_chunks(count)))
            .for_each(|((d_rows, d_weights), (rows, places))| {
                for (row, &place) in places.iter().enumerate() {
                    let dy = &dy[place / per_token * cols..][..cols];
                    let at = row * cols..(row + 1) * cols;
                    let (isa, weight) = (cpu.isa(), weights[place]);
                    let d_row = &mut d_rows[at.clone()];
                    d_weights[row] = backward_of_row(isa, dy, &rows[at], weight, d_row);
                }
            });
    });
    for (&place, d) in places.iter().zip(d_weights_of_rows) {
        d_weights[place] = d;
    }
    (d_rows, d_weights)
}

per_isa! {
    fn backward_of_row(dy: &[f32], row: &[f32], weight: f32, d_row: &mut [f32]) -> f32
     = backward_body
}

#[inline(always)]
fn backward_body(dy: &[f32], row: &[f32], weight: f32, d_row: &mut [f32]) -> f32 {
    for (d, dy) in d_row.iter_mut().zip(dy) {
        *d = weight * dy;
    }
    reduce::dot(dy, row)
}
