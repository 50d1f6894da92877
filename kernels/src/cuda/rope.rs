//! Rotary position embedding, in place.

use super::grids::over_rows;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::tables::RopePairs;

const ROTATE: Kernel = Kernel {
    module: "rope",
    name: "rope_rotate",
};

/// What turns, and how.
pub(crate) struct Rotation {
    /// Elements of a row.
    pub(crate) width: usize,
    /// Elements of a head, of which the first 2 * `half` turn.
    pub(crate) head_dim: usize,
    pub(crate) half: usize,
    pub(crate) pairs: RopePairs,
    pub(crate) inverse: bool,
}

/// Rotates every head of x `[tokens, width]` to its token's position by the cosines and sines
/// `[positions, half]`.
pub(crate) fn rotate(
    cuda: &Cuda,
    x: &Slice<f32>,
    turn: &Rotation,
    (cos, sin): (&Slice<f32>, &Slice<f32>),
    positions: &Slice<u32>,
) -> Result<()> {
    let pairs = turn.width / turn.head_dim * turn.half;
    if x.is_empty() || pairs == 0 {
        return Ok(());
    }
    let tokens = positions.len();
    cuda.launch(
        ROTATE,
        over_rows(tokens, pairs, 256),
        arguments![
            x,
            cos,
            sin,
            positions,
            tokens as u32,
            turn.width as u32,
            turn.head_dim as u32,
            turn.half as u32,
            (cos.len() / turn.half) as u32,
            u32::from(turn.pairs == RopePairs::Neighbours),
            u32::from(turn.inverse),
        ],
    )
}
