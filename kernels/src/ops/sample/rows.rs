//! Draws from several rows of logits at once, with biases and with candidates that are allowed.

use rayon::prelude::*;

use super::{Sampling, choose};
use crate::isa::Isa;
use crate::{Device, KernelError, Tensor, cpu, cuda};

/// What is changed about the logits of a row before a draw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidates<'a> {
    /// Added to logits first, each by one f32 addition: (token, bias).
    pub bias: &'a [(u32, f32)],
    /// Tokens that may be drawn: token t is bit `t % 8` of byte `t / 8`, and tokens beyond the last
    /// byte may not. Nothing allows all.
    pub allowed: Option<&'a [u8]>,
}

impl Candidates<'_> {
    /// Whether all tokens may be drawn by their logits as they are.
    pub fn is_all(&self) -> bool {
        self.bias.is_empty() && self.allowed.is_none()
    }

    /// The logits of those that may be drawn, and their tokens, which rise; no tokens for all of
    /// them.
    fn of(&self, logits: &[f32]) -> (Vec<f32>, Option<Vec<u32>>) {
        let mut logits = logits.to_vec();
        for (token, bias) in self.bias {
            logits[*token as usize] += bias;
        }
        let Some(allowed) = self.allowed else {
            return (logits, None);
        };
        let mut tokens = Vec::new();
        for (token, byte) in (0..).step_by(8).zip(allowed) {
            let bits = (0..8).filter(|bit| byte >> bit & 1 == 1);
            tokens.extend(bits.map(|bit| token + bit));
        }
        tokens.retain(|token| (*token as usize) < logits.len());
        let few = tokens.iter().map(|&token| logits[token as usize]);
        (few.collect(), Some(tokens))
    }
}

/// A draw from one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowSample<'a> {
    /// The row.
    pub row: usize,
    /// How the token is chosen.
    pub sampling: Sampling,
    /// Out of which.
    pub candidates: Candidates<'a>,
    /// Position in the random stream.
    pub position: u64,
}

impl Device {
    /// The tokens that `draws` give from logits `[m, vocab]`, which are finite; each is what
    /// [`Device::sample`] gives for its row, but for its candidates.
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
    let choose = |logits: &[f32]| match isa {
        Some(isa) => cpu::sample::choose(isa, logits, &draw.sampling, draw.position),
        None => choose(logits, &draw.sampling, draw.position),
    };
    let drawn = if draw.candidates.is_all() {
        choose(logits).map(|index| index as u32)
    } else {
        let (logits, tokens) = draw.candidates.of(logits);
        let token = |index: usize| tokens.map_or(index as u32, |tokens| tokens[index]);
        choose(&logits).map(token)
    };
    drawn.ok_or_else(|| {
        let reason = format!("no token is allowed at position {}", draw.position);
        KernelError::DoesNotFit(reason)
    })
}
