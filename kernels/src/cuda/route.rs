//! The choice of experts by a router, on a GPU: one warp per token.

use super::grids::blocks;
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::route::{RouterKind, Routing};

const FORWARD: Kernel = Kernel {
    module: "route",
    name: "route_forward",
};
const BACKWARD: Kernel = Kernel {
    module: "route",
    name: "route_backward",
};

/// Warps of a block.
const WARPS: usize = 8;

/// The kernels' name of a kind: `SOFTMAX` and so on of `route.cu`.
fn kind(routing: &Routing) -> u32 {
    match routing.kind {
        RouterKind::Softmax => 0,
        RouterKind::Sigmoid => 1,
        RouterKind::SoftmaxOfChosen => 2,
    }
}

fn grid(cuda: &Cuda, rows: usize) -> Grid {
    Grid::new(blocks(cuda, rows.div_ceil(WARPS)), 32 * WARPS as u32)
}

/// Experts and weights of every token, both `[m, chosen]`, for logits `[m, experts]`.
pub(crate) fn forward(
    cuda: &Cuda,
    logits: &Slice<f32>,
    experts: usize,
    correction: Option<&Slice<f32>>,
    routing: &Routing,
) -> Result<(Slice<u32>, Slice<f32>)> {
    let rows = logits.len() / experts;
    let len = rows * routing.chosen;
    let (chosen, weights) = (cuda.alloc::<u32>(len)?, cuda.alloc::<f32>(len)?);
    if rows > 0 {
        let scores = cuda.alloc::<f32>(logits.len())?;
        let arguments = arguments![
            logits,
            correction,
            &scores,
            &chosen,
            &weights,
            rows as u32,
            experts as u32,
            routing.chosen as u32,
            kind(routing),
            u32::from(routing.normalised),
            routing.factor,
        ];
        cuda.launch(FORWARD, grid(cuda, rows), arguments)?;
    }
    Ok((chosen, weights))
}

/// The gradient of logits `[m, experts]`, from the chosen experts and the gradient of their weights
/// `[m, chosen]`.
pub(crate) fn backward(
    cuda: &Cuda,
    logits: &Slice<f32>,
    experts: usize,
    (chosen, d_weights): (&Slice<u32>, &Slice<f32>),
    routing: &Routing,
) -> Result<Slice<f32>> {
    let rows = logits.len() / experts;
    let d_logits = cuda.alloc::<f32>(logits.len())?;
    if rows > 0 {
        let scores = cuda.alloc::<f32>(logits.len())?;
        let weights = cuda.alloc::<f32>(chosen.len())?;
        let arguments = arguments![
            logits,
            chosen,
            d_weights,
            &scores,
            &weights,
            &d_logits,
            rows as u32,
            experts as u32,
            routing.chosen as u32,
            kind(routing),
            u32::from(routing.normalised),
            routing.factor,
        ];
        cuda.launch(BACKWARD, grid(cuda, rows), arguments)?;
    }
    Ok(d_logits)
}
