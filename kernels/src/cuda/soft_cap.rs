//! Soft caps, element by element.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};

const fn kernel(name: &'static str) -> Kernel {
    let module = "soft_cap";
    Kernel { module, name }
}

/// y, of the length of x.
pub(crate) fn forward(cuda: &Cuda, x: &Slice<f32>, cap: f32) -> Result<Slice<f32>> {
    let len = x.len();
    let y = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![x, &y, len as u64, cap];
        cuda.launch(kernel("soft_cap_forward"), over(cuda, len), arguments)?;
    }
    Ok(y)
}

/// dx, of the length of dy.
pub(crate) fn backward(
    cuda: &Cuda,
    dy: &Slice<f32>,
    y: &Slice<f32>,
    cap: f32,
) -> Result<Slice<f32>> {
    let len = dy.len();
    let dx = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![dy, y, &dx, len as u64, cap];
        cuda.launch(kernel("soft_cap_backward"), over(cuda, len), arguments)?;
    }
    Ok(dx)
}

/// The slope at each row's target among capped logits y `[rows, vocab]`.
pub(crate) fn at_targets(
    cuda: &Cuda,
    y: &Slice<f32>,
    vocab: usize,
    targets: &Slice<u32>,
    cap: f32,
) -> Result<Slice<f32>> {
    let rows = targets.len();
    let slopes = cuda.alloc(rows)?;
    if rows > 0 {
        let arguments = arguments![y, targets, &slopes, rows as u64, vocab as u32, cap];
        cuda.launch(kernel("soft_cap_targets"), over(cuda, rows), arguments)?;
    }
    Ok(slopes)
}
