//! The next token from logits: greedy, or drawn from a counter-based stream.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::reference::sample::{choose, draw_by};
use crate::{Device, KernelError, Tensor, cpu, cuda};

pub use super::logprobs::Logprobs;
pub use crate::reference::sample::{Candidates, RowSample, Sampling, greedy, sample};

impl Device {
    /// The token at `position` of a stream, from logits `[1, vocab]`: see [`sample`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn sample(
        &self,
        logits: &Tensor,
        sampling: &Sampling,
        position: u64,
    ) -> Result<u32, KernelError> {
        match self {
            Self::Cuda(gpu) => cuda::sample::draw(gpu, &logits.on(gpu)?, sampling, position),
            Self::Cpu(cpu) => {
                let drawn = cpu::sample::choose(cpu.isa(), &logits.values()?, sampling, position);
                Ok(drawn.unwrap_or(0) as u32)
            }
            Self::Reference => Ok(sample(&logits.values()?, sampling, position)),
        }
    }

    /// The tokens that `draws` give from logits `[m, vocab]`, which are finite; each is what
    /// [`Device::sample`] gives for its row, restricted to its candidates.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] for a row or a biased token that is not there, and where no
    /// token is allowed; [`KernelError::Cuda`] where a GPU fails.
    pub fn sample_rows(
        &self,
        logits: &Tensor,
        draws: &[RowSample<'_>],
    ) -> Result<Vec<u32>, KernelError> {
        let (rows, vocab) = logits.rows_cols();
        check(rows, vocab, draws)?;
        match self {
            Self::Cuda(gpu) => {
                let all = logits.on(gpu)?;
                let is_plain = |draw: &&RowSample<'_>| draw.candidates.is_all();
                let plain = draws.iter().filter(is_plain);
                let plain: Vec<_> = plain
                    .map(|draw| (draw.row, draw.sampling, draw.position))
                    .collect();
                let mut drawn = cuda::sample::draw_rows(gpu, &all, vocab, &plain)?.into_iter();
                let token = |draw: &RowSample<'_>| {
                    let is_plain = draw.candidates.is_all();
                    match if is_plain { drawn.next() } else { None } {
                        Some(token) => Ok(token),
                        None => from_row(None, &logits.rows(draw.row, 1).values()?, draw),
                    }
                };
                draws.iter().map(token).collect()
            }
            Self::Cpu(cpu) => {
                let logits = logits.values()?;
                let token = |draw: &RowSample<'_>| {
                    let row = &logits[draw.row * vocab..(draw.row + 1) * vocab];
                    from_row(Some(cpu.isa()), row, draw)
                };
                match draws.len() {
                    0 | 1 => draws.iter().map(token).collect(),
                    _ => cpu.pool().install(|| draws.par_iter().map(token).collect()),
                }
            }
            Self::Reference => {
                let logits = logits.values()?;
                let row = |draw: &RowSample<'_>| draw.row * vocab..(draw.row + 1) * vocab;
                let token = |draw: &RowSample<'_>| from_row(None, &logits[row(draw)], draw);
                draws.iter().map(token).collect()
            }
        }
    }
}

fn check(rows: usize, vocab: usize, draws: &[RowSample<'_>]) -> Result<(), KernelError> {
    for (index, draw) in draws.iter().enumerate() {
        let refuse = |reason: String| {
            let error = format!("draw {index} of {}: {reason}", draws.len());
            Err(KernelError::DoesNotFit(error))
        };
        if draw.row >= rows {
            return refuse(format!("row {} of {rows}", draw.row));
        }
        let beyond = |(token, _): &&(u32, f32)| *token as usize >= vocab;
        if let Some((token, _)) = draw.candidates.bias.iter().find(beyond) {
            return refuse(format!("a bias for token {token} of {vocab}"));
        }
    }
    Ok(())
}

/// The token that a draw gives from its row, on the host; by vectors where there are any.
fn from_row(isa: Option<Isa>, logits: &[f32], draw: &RowSample<'_>) -> Result<u32, KernelError> {
    let by_vectors = |isa| {
        move |logits: &[f32], sampling: &Sampling, position| {
            cpu::sample::choose(isa, logits, sampling, position)
        }
    };
    let drawn = match isa {
        Some(isa) => draw_by(by_vectors(isa), logits, draw),
        None => draw_by(choose, logits, draw),
    };
    drawn.ok_or_else(|| {
        let reason = format!("no token is allowed at position {}", draw.position);
        KernelError::DoesNotFit(reason)
    })
}
