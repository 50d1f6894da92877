//! The next token from logits, in one block: the logits need not leave the GPU.

use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::ops::sample::Sampling;
use crate::rng::Philox;

const GREEDY: Kernel = Kernel {
    module: "sample",
    name: "sample_greedy",
};
const DRAW: Kernel = Kernel {
    module: "sample",
    name: "sample_draw",
};

/// The token at `position` of a stream, from logits `[vocab]`; 0 where there are none. Waits.
pub(crate) fn draw(
    cuda: &Cuda,
    logits: &Slice<f32>,
    sampling: &Sampling,
    position: u64,
) -> Result<u32> {
    let (vocab, grid) = (logits.len(), Grid::new(1, 1_024));
    if vocab == 0 {
        return Ok(0);
    }
    let token = cuda.alloc::<u32>(1)?;
    if sampling.temperature == 0.0 {
        cuda.launch(GREEDY, grid, arguments![logits, &token, vocab as u32])?;
    } else {
        let scratch = cuda.alloc::<u32>(4 * vocab)?;
        cuda.launch(
            DRAW,
            grid,
            arguments![
                logits,
                &scratch,
                &token,
                vocab as u32,
                sampling.temperature,
                sampling.top_k.min(vocab) as u32,
                sampling.top_p,
                Philox::new(sampling.seed, 0).unit(position),
            ],
        )?;
    }
    Ok(cuda.download(&token)?[0])
}
