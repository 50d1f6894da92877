//! How probable tokens are: NUMERICS.md, section 6.

use rayon::prelude::*;

use crate::reference::logprobs::{log_sum, of_row};
use crate::{Device, KernelError, Tensor, cpu};

pub use crate::reference::logprobs::Logprobs;

impl Device {
    /// For each (row, token, n): the logprob of `token` by that row of logits `[m, vocab]`, and the
    /// n most probable tokens with theirs. A logprob is minus the loss of
    /// [`Device::cross_entropy`], bit for bit.
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
                Self::Cpu(cpu) => cpu::logprobs::log_sum(cpu.isa(), line, &mut vec![0.0; vocab]),
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
