//! Random numbers of training on a GPU: a thread takes a group of columns of a row.

use super::grids::over_rows;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::noise::{DROPPED_COLUMNS, Dropout, LANES, NOISE_COLUMNS};

const fn kernel(name: &'static str) -> Kernel {
    let module = "noise";
    Kernel { module, name }
}

/// Groups of rows of `cols` columns, in whole tiles.
fn groups(cols: usize, columns: usize) -> usize {
    cols.div_ceil(LANES * columns) * LANES
}

/// Numbers of tokens, and the token of each row.
type Rows<'a> = (&'a Slice<u32>, Option<&'a Slice<u32>>);

/// Puts 0 for the dropped codes of q, rows of `cols`.
pub(crate) fn drop_codes(
    cuda: &Cuda,
    q: &Slice<i16>,
    cols: usize,
    dropout: Dropout,
    (tokens, rows): Rows<'_>,
) -> Result<()> {
    let count = q.len().checked_div(cols).unwrap_or(0);
    if count == 0 {
        return Ok(());
    }
    let (grid, threshold) = (
        over_rows(count, groups(cols, DROPPED_COLUMNS), 64),
        u32::from(dropout.threshold),
    );
    let (count, cols) = (count as u32, cols as u32);
    let arguments = arguments![q, tokens, rows, dropout.key, threshold, count, cols];
    cuda.launch(kernel("noise_drop_codes"), grid, arguments)
}

/// Puts 0 for the dropped elements of x, rows of `cols`.
pub(crate) fn drop_values(
    cuda: &Cuda,
    x: &Slice<f32>,
    cols: usize,
    dropout: Dropout,
    (tokens, rows): Rows<'_>,
) -> Result<()> {
    let count = x.len().checked_div(cols).unwrap_or(0);
    if count == 0 {
        return Ok(());
    }
    let (grid, threshold) = (
        over_rows(count, groups(cols, DROPPED_COLUMNS), 64),
        u32::from(dropout.threshold),
    );
    let (count, cols) = (count as u32, cols as u32);
    let arguments = arguments![x, tokens, rows, dropout.key, threshold, count, cols];
    cuda.launch(kernel("noise_drop_values"), grid, arguments)
}

/// Adds noise to x `[tokens, cols]`, uniform in `[-reach, reach)` of the token.
pub(crate) fn add_noise(
    cuda: &Cuda,
    x: &Slice<f32>,
    cols: usize,
    key: u64,
    tokens: &Slice<u32>,
    reach: &Slice<f32>,
) -> Result<()> {
    let count = reach.len();
    if count * cols == 0 {
        return Ok(());
    }
    let grid = over_rows(count, groups(cols, NOISE_COLUMNS), 64);
    let arguments = arguments![x, tokens, reach, key, count as u32, cols as u32];
    cuda.launch(kernel("noise_add"), grid, arguments)
}
