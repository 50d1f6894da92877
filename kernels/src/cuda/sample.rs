//! The next token from logits, in one block: the logits need not leave the GPU.

use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::sample::Sampling;
use crate::rng::Philox;

const GREEDY: Kernel = Kernel {
    module: "sample",
    name: "sample_greedy",
};
const DRAW: Kernel = Kernel {
    module: "sample",
    name: "sample_draw",
};

/// The token at `position` of a stream, from logits `[vocab]`; 0 where there are none. Waits for
/// the GPU.
pub(crate) fn draw(
    cuda: &Cuda,
    logits: &Slice<f32>,
    sampling: &Sampling,
    position: u64,
) -> Result<u32> {
    let token = cuda.zeros::<u32>(1)?;
    put_token(cuda, logits, sampling, position, &token)?;
    Ok(cuda.download(&token)?[0])
}

/// The tokens that rows of logits `[_, vocab]` give, each (row, sampling, position). Waits once.
pub(crate) fn draw_rows(
    cuda: &Cuda,
    logits: &Slice<f32>,
    vocab: usize,
    draws: &[(usize, Sampling, u64)],
) -> Result<Vec<u32>> {
    let tokens = cuda.zeros::<u32>(draws.len())?;
    for (index, (row, sampling, position)) in draws.iter().enumerate() {
        let logits = logits.part(row * vocab, vocab);
        put_token(cuda, &logits, sampling, *position, &tokens.part(index, 1))?;
    }
    Ok(cuda.download(&tokens)?)
}

/// Puts the token of logits `[vocab]` into `token`, which stays as it is if there are no logits.
fn put_token(
    cuda: &Cuda,
    logits: &Slice<f32>,
    sampling: &Sampling,
    position: u64,
    token: &Slice<u32>,
) -> Result<()> {
    let (vocab, grid) = (logits.len(), Grid::new(1, 1_024));
    if vocab == 0 {
        return Ok(());
    }
    if sampling.temperature == 0.0 {
        return cuda.launch(GREEDY, grid, arguments![logits, token, vocab as u32]);
    }
    let scratch = cuda.alloc::<u32>(4 * vocab)?;
    let arguments = arguments![
        logits,
        &scratch,
        token,
        vocab as u32,
        sampling.temperature,
        sampling.top_k.min(vocab) as u32,
        sampling.top_p,
        Philox::new(sampling.seed, 0).unit(position),
    ];
    cuda.launch(DRAW, grid, arguments)
}
