//! AdamW in place, with moments in 8 bits.

use super::grids::{blocks, over};
use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::adamw::AdamStep;
use crate::reference::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK, MomentKind};

const STEP: Kernel = Kernel {
    module: "adamw_8bit",
    name: "adamw_8bit_step",
};
const CHECK: Kernel = Kernel {
    module: "adamw_8bit",
    name: "adamw_8bit_check",
};

/// Updates value and moments from the summed gradient. All of one length.
pub(crate) fn step(
    cuda: &Cuda,
    step: &AdamStep,
    gradient: &Slice<f32>,
    value: &Slice<f32>,
    first: &Slice<u32>,
    second: &Slice<u32>,
) -> Result<()> {
    let len = gradient.len();
    if len == 0 {
        return Ok(());
    }
    let tables = [MomentKind::First, MomentKind::Second].map(MomentKind::levels);
    let tables = tables.map(|table| [table.levels, table.borders].concat());
    let tables = cuda.upload(&tables.concat())?;
    let wanted = len.div_ceil(MOMENT_BLOCK);
    let grid = Grid::new(blocks(cuda, wanted), MOMENT_BLOCK as u32);
    cuda.launch(
        STEP,
        grid,
        arguments![
            gradient,
            value,
            first,
            second,
            &tables,
            len as u64,
            step.gradient_scale,
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.bias1,
            step.bias2,
            step.epsilon,
            step.weight_decay,
        ],
    )
}

/// The first block whose scale is not finite, of each of some moments. Waits once for all.
pub(crate) fn check(cuda: &Cuda, moments: &[Slice<u32>]) -> Result<Vec<Option<usize>>> {
    let found = cuda.upload(&vec![u64::MAX; moments.len()])?;
    for (index, words) in moments
        .iter()
        .enumerate()
        .filter(|(_, words)| !words.is_empty())
    {
        let (found, count) = (found.part(index, 1), words.len().div_ceil(BLOCK_WORDS));
        let arguments = arguments![words, &found, count as u64];
        cuda.launch(CHECK, over(cuda, count), arguments)?;
    }
    let found = cuda.download(&found)?;
    let block = |&block: &u64| (block != u64::MAX).then_some(block as usize);
    Ok(found.iter().map(block).collect())
}
