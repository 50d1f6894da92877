//! Softmax cross-entropy of a language model's head, forward and backward.

use super::grids::{blocks, over_rows};
use super::{Cuda, Grid, Kernel, Result, Slice, arguments, embedding};
use crate::reference::cross_entropy::LossForm;

const ROWS: Kernel = Kernel {
    module: "cross_entropy",
    name: "cross_entropy_rows",
};
const FORMED: Kernel = Kernel {
    module: "cross_entropy",
    name: "cross_entropy_formed",
};
const ONES: Kernel = Kernel {
    module: "cross_entropy",
    name: "cross_entropy_ones",
};
const TAKE_WEIGHT: Kernel = Kernel {
    module: "cross_entropy",
    name: "cross_entropy_take_weight",
};

/// Turns logits `[tokens, vocab]` into probabilities, in place, and returns the loss of each token.
pub(crate) fn forward(
    cuda: &Cuda,
    logits: &Slice<f32>,
    vocab: usize,
    targets: &Slice<u32>,
) -> Result<Slice<f32>> {
    let rows = targets.len();
    let losses = cuda.alloc(rows)?;
    if !logits.is_empty() {
        let grid = Grid::new(blocks(cuda, rows), 512);
        let arguments = arguments![logits, targets, &losses, rows as u32, vocab as u32];
        cuda.launch(ROWS, grid, arguments)?;
    }
    Ok(losses)
}

/// As [`forward`], of the loss that `form` describes.
pub(crate) fn formed(
    cuda: &Cuda,
    logits: &Slice<f32>,
    vocab: usize,
    targets: &Slice<u32>,
    form: LossForm,
) -> Result<Slice<f32>> {
    let rows = targets.len();
    let losses = cuda.alloc(rows)?;
    if !logits.is_empty() {
        let grid = Grid::new(blocks(cuda, rows), 512);
        let (smoothing, z_loss) = (form.smoothing, form.z_loss);
        let (rows, vocab) = (rows as u32, vocab as u32);
        let arguments = arguments![logits, targets, &losses, rows, vocab, smoothing, z_loss];
        cuda.launch(FORMED, grid, arguments)?;
    }
    Ok(losses)
}

/// `[tokens, vocab]` with 1 in the rows that have a target, 0 in others.
pub(crate) fn ones(cuda: &Cuda, vocab: usize, targets: &Slice<u32>) -> Result<Slice<f32>> {
    let rows = targets.len();
    let ones = cuda.alloc(rows * vocab)?;
    if !ones.is_empty() {
        let arguments = arguments![&ones, targets, rows as u32, vocab as u32];
        cuda.launch(ONES, over_rows(rows, vocab, 256), arguments)?;
    }
    Ok(ones)
}

/// From each token's row of dx `[tokens, hidden]` subtracts the decoded row of the head's weight at
/// its target, times its share where there are shares. The weight is its codes `[vocab, hidden]`,
/// its exponents `[vocab]` and hidden.
pub(crate) fn take_rows(
    cuda: &Cuda,
    dx: &Slice<f32>,
    (q, exp, hidden): (&Slice<i16>, &Slice<i32>, usize),
    targets: &Slice<u32>,
    shares: Option<&Slice<f32>>,
) -> Result<()> {
    if dx.is_empty() {
        return Ok(());
    }
    let (rows, vocab) = (targets.len() as u32, exp.len() as u32);
    let arguments = arguments![dx, q, exp, targets, shares, rows, hidden as u32, vocab];
    cuda.launch(
        TAKE_WEIGHT,
        over_rows(targets.len(), hidden, 256),
        arguments,
    )
}

/// Subtracts the one-hot part from the gradient dw `[vocab, width]` of the head's weight: for each
/// token, in order, its input x `[tokens, width]` from the row of its target, times its share where
/// there are shares.
pub(crate) fn take_targets(
    cuda: &Cuda,
    dw: &Slice<f32>,
    (x, width): (&Slice<f32>, usize),
    targets: &Slice<u32>,
    shares: Option<&Slice<f32>>,
) -> Result<()> {
    embedding::take(cuda, dw, (x, width), targets, shares)
}
