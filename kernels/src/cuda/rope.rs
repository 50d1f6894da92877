//! Rotary position embedding, in place.

use super::grids::over_rows;
use super::{Cuda, Kernel, Result, Slice, arguments};

const ROTATE: Kernel = Kernel {
    module: "rope",
    name: "rope_rotate",
};

/// Rotates every head of x `[tokens, width]`, of 2 * `half` elements each, to its token's position
/// by the cosines and sines `[positions, half]`.
pub(crate) fn rotate(
    cuda: &Cuda,
    x: &Slice<f32>,
    (width, half): (usize, usize),
    (cos, sin): (&Slice<f32>, &Slice<f32>),
    positions: &Slice<u32>,
    inverse: bool,
) -> Result<()> {
    if x.is_empty() {
        return Ok(());
    }
    let tokens = positions.len();
    cuda.launch(
        ROTATE,
        over_rows(tokens, width / 2, 256),
        arguments![
            x,
            cos,
            sin,
            positions,
            tokens as u32,
            width as u32,
            half as u32,
            (cos.len() / half) as u32,
            u32::from(inverse),
        ],
    )
}
