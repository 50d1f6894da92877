//! Activations, element by element.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::activation::Activation;

const fn kernel(name: &'static str) -> Kernel {
    let module = "activation";
    Kernel { module, name }
}

/// An activation as the kernels take it: its number, then alpha and limit, which only clamped
/// SwiGLU has.
fn kind(act: Activation) -> (u32, f32, f32) {
    match act {
        Activation::Silu => (0, 0.0, 0.0),
        Activation::Gelu => (1, 0.0, 0.0),
        Activation::GeluTanh => (2, 0.0, 0.0),
        Activation::QuickGelu => (3, 0.0, 0.0),
        Activation::Relu => (4, 0.0, 0.0),
        Activation::ReluSquared => (5, 0.0, 0.0),
        Activation::ClampedSwiglu { alpha, limit } => (6, alpha, limit),
    }
}

/// `act(g) * u`, of the length of g and u.
pub(crate) fn gated(
    cuda: &Cuda,
    act: Activation,
    g: &Slice<f32>,
    u: &Slice<f32>,
) -> Result<Slice<f32>> {
    let (len, (kind, alpha, limit)) = (g.len(), kind(act));
    let y = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![g, u, &y, len as u64, kind, alpha, limit];
        cuda.launch(kernel("activation_gated"), over(cuda, len), arguments)?;
    }
    Ok(y)
}

/// (dg, du), of the length of dy.
pub(crate) fn gated_backward(
    cuda: &Cuda,
    act: Activation,
    dy: &Slice<f32>,
    g: &Slice<f32>,
    u: &Slice<f32>,
) -> Result<(Slice<f32>, Slice<f32>)> {
    let (len, (kind, alpha, limit)) = (dy.len(), kind(act));
    let (dg, du) = (cuda.alloc(len)?, cuda.alloc(len)?);
    if len > 0 {
        let by = kernel("activation_gated_backward");
        let arguments = arguments![dy, g, u, &dg, &du, len as u64, kind, alpha, limit];
        cuda.launch(by, over(cuda, len), arguments)?;
    }
    Ok((dg, du))
}

/// `act(x)`, of the length of x.
pub(crate) fn forward(cuda: &Cuda, act: Activation, x: &Slice<f32>) -> Result<Slice<f32>> {
    let (len, (kind, alpha, limit)) = (x.len(), kind(act));
    let y = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![x, &y, len as u64, kind, alpha, limit];
        cuda.launch(kernel("activation_forward"), over(cuda, len), arguments)?;
    }
    Ok(y)
}

/// dx, of the length of dy.
pub(crate) fn backward(
    cuda: &Cuda,
    act: Activation,
    dy: &Slice<f32>,
    x: &Slice<f32>,
) -> Result<Slice<f32>> {
    let (len, (kind, alpha, limit)) = (dy.len(), kind(act));
    let dx = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![dy, x, &dx, len as u64, kind, alpha, limit];
        cuda.launch(kernel("activation_backward"), over(cuda, len), arguments)?;
    }
    Ok(dx)
}
