//! Lion in place, with its momentum in 8 bits.

use super::grids::blocks;
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::adamw_8bit::{MOMENT_BLOCK, MomentKind};
use crate::reference::lion::LionStep;

const STEP: Kernel = Kernel {
    module: "lion_8bit",
    name: "lion_8bit_step",
};

/// Updates value and momentum from the summed gradient. All of one length.
pub(crate) fn step(
    cuda: &Cuda,
    step: &LionStep,
    gradient: &Slice<f32>,
    value: &Slice<f32>,
    momentum: &Slice<u32>,
) -> Result<()> {
    let len = gradient.len();
    if len == 0 {
        return Ok(());
    }
    let table = MomentKind::First.levels();
    let table = cuda.upload(&[table.levels, table.borders].concat())?;
    let wanted = len.div_ceil(MOMENT_BLOCK);
    let grid = Grid::new(blocks(cuda, wanted), MOMENT_BLOCK as u32);
    cuda.launch(
        STEP,
        grid,
        arguments![
            gradient,
            value,
            momentum,
            &table,
            len as u64,
            step.gradient_scale,
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.weight_decay,
        ],
    )
}
