//! Rows of experts on a GPU: gathered, added to their tokens, and back.

use super::grids::{blocks, over_rows};
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::coded::Coded;

const fn kernel(name: &'static str) -> Kernel {
    let module = "experts";
    Kernel { module, name }
}

/// The rows of `x` at `rows`, codes and exponents.
pub(crate) fn gather(cuda: &Cuda, x: &Coded, rows: &Slice<u32>) -> Result<Coded> {
    let (count, cols) = (rows.len(), x.cols);
    let (q, exp) = (cuda.alloc::<i16>(count * cols)?, cuda.alloc::<i32>(count)?);
    if count > 0 {
        let (from_q, from_exp) = (x.q.on(cuda)?, x.exp.on(cuda)?);
        let (rows_of_x, cols) = (x.rows as u32, cols as u32);
        let arguments = arguments![
            &from_q,
            &from_exp,
            rows,
            &q,
            &exp,
            count as u32,
            cols,
            rows_of_x
        ];
        let grid = over_rows(count, x.cols.max(1), 256);
        cuda.launch(kernel("experts_gather"), grid, arguments)?;
    }
    Ok(Coded {
        rows: count,
        cols,
        precision: x.precision,
        q: q.into(),
        exp: exp.into(),
    })
}

/// `y = fma(weight, row, y)` over the rows of each token: y `[m, cols]`, rows `[m * k, cols]`,
/// slots `[m, k]`, weights `[m, k]` or all 1.
pub(crate) fn combine(
    cuda: &Cuda,
    y: &Slice<f32>,
    cols: usize,
    rows: &Slice<f32>,
    slots: &Slice<u32>,
    weights: Option<&Slice<f32>>,
) -> Result<()> {
    let tokens = y.len() / cols;
    let arguments = arguments![
        y,
        rows,
        slots,
        weights,
        tokens as u32,
        cols as u32,
        (slots.len() / tokens) as u32,
    ];
    let grid = over_rows(tokens, cols, 256);
    cuda.launch(kernel("experts_combine"), grid, arguments)
}

/// Gradients of rows `[m * k, cols]` and weights `[m, k]` from dy `[m, cols]`.
pub(crate) fn combine_backward(
    cuda: &Cuda,
    dy: &Slice<f32>,
    cols: usize,
    rows: &Slice<f32>,
    slots: &Slice<u32>,
    weights: &Slice<f32>,
) -> Result<(Slice<f32>, Slice<f32>)> {
    let (d_rows, d_weights) = (cuda.alloc(rows.len())?, cuda.alloc(weights.len())?);
    if !d_rows.is_empty() {
        let per_token = slots.len() / (dy.len() / cols);
        let arguments = arguments![
            dy,
            rows,
            slots,
            weights,
            &d_rows,
            &d_weights,
            slots.len() as u32,
            cols as u32,
            per_token as u32,
        ];
        // One warp per row.
        let grid = Grid::new(blocks(cuda, slots.len().div_ceil(8)), 256);
        cuda.launch(kernel("experts_combine_backward"), grid, arguments)?;
    }
    Ok((d_rows, d_weights))
}
