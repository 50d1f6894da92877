//! SwiGLU, element by element.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};

const FORWARD: Kernel = Kernel {
    module: "swiglu",
    name: "swiglu_forward",
};
const BACKWARD: Kernel = Kernel {
    module: "swiglu",
    name: "swiglu_backward",
};

/// y, of the length of g and u.
pub(crate) fn forward(cuda: &Cuda, g: &Slice<f32>, u: &Slice<f32>) -> Result<Slice<f32>> {
    let len = g.len();
    let y = cuda.alloc(len)?;
    if len > 0 {
        cuda.launch(FORWARD, over(cuda, len), arguments![g, u, &y, len as u64])?;
    }
    Ok(y)
}

/// (dg, du), of the length of dy.
pub(crate) fn backward(
    cuda: &Cuda,
    dy: &Slice<f32>,
    g: &Slice<f32>,
    u: &Slice<f32>,
) -> Result<(Slice<f32>, Slice<f32>)> {
    let len = dy.len();
    let (dg, du) = (cuda.alloc(len)?, cuda.alloc(len)?);
    if len > 0 {
        let arguments = arguments![dy, g, u, &dg, &du, len as u64];
        cuda.launch(BACKWARD, over(cuda, len), arguments)?;
    }
    Ok((dg, du))
}
