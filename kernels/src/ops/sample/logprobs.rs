//! How probable tokens are: NUMERICS.md, section 6.

use rayon::prelude::*;

use crate::math::{LN_2, LOG2_E, ceil_to_int, exp2, ln};
use crate::reference::reduce;
use crate::{Device, KernelError, Tensor, cpu};

/// Natural logarithms of probabilities after one row of logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// Of the token that was asked for.
    pub target: f32,
    /// The most probable tokens, most probable first, the lowest id first among equal logits.
    pub top: Vec<(u32, f32)>,
}

impl Device {
    /// For each (row, token, n): how probable `token` is by that row of logits `[m, vocab]`, and
    /// the n most probable tokens. A logprob is minus the loss of [`Device::cross_entropy`], bit
    /// for bit.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] for a row or a token that is not there; [`KernelError::Cuda`]
    /// where a GPU fails.
    pub fn logprobs(
        &self,
        logits: &Tensor,
        targets: &[(usize, u32, u8)],
    ) -> Result<Vec<Logprobs>, KernelError> {
        let (rows, vocab) = logits.rows_cols();
        let beyond = |(row, token, _): &&(usize, u32, u8)| *row >= rows || *token as usize >= vocab;
        if let Some((row, token, _)) = targets.iter().find(beyond) {
            return Err(KernelError::DoesNotFit(format!(
                "token {token} by row {row} of logits [{rows}, {vocab}]"
            )));
        }
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let logits = logits.values()?;
        let one = |&(row, token, top): &(usize, u32, u8)| {
            let line = &logits[row * vocab..(row + 1) * vocab];
            let sums = match self {
                Self::Cpu(cpu) => {
                    cpu::cross_entropy::log_sum(cpu.isa(), line, &mut vec![0.0; vocab])
                }
                _ => log_sum(line),
            };
            of_row(line, sums, token, top.into())
        };
        Ok(match self {
            Self::Cpu(cpu) => cpu.pool().install(|| targets.par_iter().map(one).collect()),
            _ => targets.iter().map(one).collect(),
        })
    }
}

/// M and `ln(l)` of a row.
fn log_sum(logits: &[f32]) -> (f32, f32) {
    let scores = logits.iter().map(|v| v * LOG2_E);
    let larger = |m: f32, v: f32| if v > m { v } else { m };
    let max = ceil_to_int(scores.clone().fold(f32::NEG_INFINITY, larger)) as f32;
    let p: Vec<f32> = scores.map(|t| exp2(t - max)).collect();
    (max, ln(reduce::sum(&p)))
}

fn of_row(logits: &[f32], (max, log_sum): (f32, f32), token: u32, top: usize) -> Logprobs {
    let logprob = |token: u32| {
        let gap = max - logits[token as usize] * LOG2_E;
        // From 0, so that no -0 comes out.
        0.0 - gap.mul_add(LN_2, log_sum)
    };
    let top = largest(logits, top).into_iter();
    Logprobs {
        target: logprob(token),
        top: top.map(|token| (token, logprob(token))).collect(),
    }
}

/// The `count` tokens of the largest logits, the lowest id first among equals.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (token, logit) in (0..).zip(logits) {
        let is_below = |&held: &u32| logits[held as usize] >= *logit;
        if best.len() == count && best.last().is_none_or(is_below) {
            continue;
        }
        let place = best.partition_point(is_below);
        best.insert(place, token);
        best.truncate(count);
    }
    best
}
