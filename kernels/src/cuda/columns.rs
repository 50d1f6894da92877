//! Columns of a matrix in which several matrices stand side by side.

use super::grids::over_rows;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::columns::Columns;

const fn kernel(name: &'static str) -> Kernel {
    let module = "columns";
    Kernel { module, name }
}

/// The columns of x `[rows, groups * group_width]`, side by side: `[rows, groups * width]`.
pub(crate) fn take(
    cuda: &Cuda,
    x: &Slice<f32>,
    rows: usize,
    columns: &Columns,
) -> Result<Slice<f32>> {
    let part = cuda.alloc(rows * columns.chosen())?;
    launch(cuda, kernel("columns_take"), [x, &part], rows, columns)?;
    Ok(part)
}

/// Overwrites the columns of x by part `[rows, groups * width]`.
pub(crate) fn put(
    cuda: &Cuda,
    x: &Slice<f32>,
    rows: usize,
    columns: &Columns,
    part: &Slice<f32>,
) -> Result<()> {
    launch(cuda, kernel("columns_put"), [x, part], rows, columns)
}

fn launch(
    cuda: &Cuda,
    by: Kernel,
    [x, part]: [&Slice<f32>; 2],
    rows: usize,
    columns: &Columns,
) -> Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    cuda.launch(
        by,
        over_rows(rows, columns.chosen(), 256),
        arguments![
            x,
            part,
            rows as u32,
            columns.groups as u32,
            columns.group_width as u32,
            columns.offset as u32,
            columns.width as u32,
        ],
    )
}
