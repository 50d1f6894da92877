//! Grids of kernels, by how many elements they take.

use super::{Cuda, Grid};

/// Threads of a block of a kernel whose grid may have any size.
const THREADS: u32 = 256;
/// Columns up to which a warp takes a row.
const SHORT: usize = 1_024;
/// The most blocks of a kernel whose grid may have any size.
const BLOCKS_MAX: usize = 1 << 16;

/// A grid for `len` elements (more than 0), whose threads may take several.
pub(super) fn over(cuda: &Cuda, len: usize) -> Grid {
    Grid::new(blocks(cuda, len.div_ceil(256)), 256)
}

/// At most `wanted` blocks of a kernel whose blocks may take several shares: enough to fill the
/// GPU.
pub(super) fn blocks(cuda: &Cuda, wanted: usize) -> u32 {
    wanted.min(cuda.multiprocessors() as usize * 16).max(1) as u32
}

/// A grid of blocks of `threads` threads for `rows` by `cols` elements (more than 0).
pub(super) fn over_rows(rows: usize, cols: usize, threads: u32) -> Grid {
    let along = cols.div_ceil(threads as usize);
    Grid::new(along as u32, threads).y(rows.min(65_535) as u32)
}

/// The grid of a kernel that takes whole rows, and whether a warp takes each: a block does where
/// they are long.
pub(super) fn over_short_or_long(cuda: &Cuda, rows: usize, cols: usize) -> (Grid, bool) {
    let short = cols <= SHORT;
    let wanted = if short { rows.div_ceil(8) } else { rows };
    (Grid::new(blocks(cuda, wanted), THREADS), short)
}

/// A grid for a kernel that takes one of any size, with a thread for each of `elements`.
pub(super) fn any_grid(elements: usize) -> Grid {
    let blocks = elements.div_ceil(THREADS as usize).clamp(1, BLOCKS_MAX);
    Grid::new(blocks as u32, THREADS)
}
