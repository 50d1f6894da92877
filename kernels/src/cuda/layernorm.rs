//! LayerNorm by rows: a warp each where they are short, a block each where they are long.

use super::grids::{over_rows, over_short_or_long};
use super::reduce::tree;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::tree::Atoms;

const fn kernel(name: &'static str) -> Kernel {
    let module = "layernorm";
    Kernel { module, name }
}

/// y `[rows, cols]`, mean `[rows]` and r `[rows]`.
pub(crate) fn forward(
    cuda: &Cuda,
    x: &Slice<f32>,
    w: &Slice<f32>,
    b: Option<&Slice<f32>>,
    eps: f32,
) -> Result<[Slice<f32>; 3]> {
    let cols = w.len();
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let (y, means, inverse) = (cuda.alloc(x.len())?, cuda.alloc(rows)?, cuda.alloc(rows)?);
    if rows > 0 {
        let (grid, narrow) = over_short_or_long(cuda, rows, cols);
        let by = if narrow {
            kernel("layernorm_forward_narrow")
        } else {
            kernel("layernorm_forward_wide")
        };
        let (rows, cols) = (rows as u32, cols as u32);
        let arguments = arguments![x, w, b, &y, &means, &inverse, rows, cols, eps];
        cuda.launch(by, grid, arguments)?;
    }
    Ok([y, means, inverse])
}

/// dx `[rows, cols]`.
pub(crate) fn backward(
    cuda: &Cuda,
    dy: &Slice<f32>,
    x: &Slice<f32>,
    w: &Slice<f32>,
    (means, inverse): (&Slice<f32>, &Slice<f32>),
) -> Result<Slice<f32>> {
    let (rows, cols) = (inverse.len(), w.len());
    let dx = cuda.alloc(x.len())?;
    if !x.is_empty() {
        let (grid, narrow) = over_short_or_long(cuda, rows, cols);
        let by = if narrow {
            kernel("layernorm_dx_narrow")
        } else {
            kernel("layernorm_dx_wide")
        };
        let arguments = arguments![dy, x, w, means, inverse, &dx, rows as u32, cols as u32];
        cuda.launch(by, grid, arguments)?;
    }
    Ok(dx)
}

/// dw `[cols]`: in an atom rows in order, atoms by the tree. A token may have several rows.
pub(crate) fn weight_gradient(
    cuda: &Cuda,
    dy: &Slice<f32>,
    x: &Slice<f32>,
    (means, inverse): (&Slice<f32>, &Slice<f32>),
    cols: usize,
    atoms: &Atoms,
) -> Result<Slice<f32>> {
    let count = atoms.count();
    let rows_per_token = inverse.len().checked_div(atoms.tokens()).unwrap_or(0);
    let partials = cuda.alloc(count * cols)?;
    for group in atoms.groups().filter(|group| group.count * cols > 0) {
        let (first, rows) = (group.sequences.first_token, group.sequences.tokens());
        let (first, rows) = (first * rows_per_token, rows * rows_per_token);
        cuda.launch(
            kernel("layernorm_dw_atoms"),
            over_rows(group.count, cols, 64),
            arguments![
                &dy.part(first * cols, rows * cols),
                &x.part(first * cols, rows * cols),
                &means.part(first, rows),
                &inverse.part(first, rows),
                &partials.part(group.first_atom * cols, group.count * cols),
                cols as u32,
                group.count as u32,
                (group.sequences.len * rows_per_token) as u64,
                (Atoms::TOKENS * rows_per_token) as u64,
            ],
        )?;
    }
    tree(cuda, partials, count)
}
