//! Computes on other data than it signs for: the liar of `concord demo`. No option of a command
//! line of a release reaches it.

use concord_models::decoder::Batch;

use super::FaultHooks;

/// Computes on other tokens than it claims.
#[derive(Clone, Copy, Debug)]
pub struct WrongData {
    /// The first false step, from 0.
    pub from_step: u32,
}

impl FaultHooks for WrongData {
    /// A stage in the middle of a pipeline sees no tokens and has nothing to lie about.
    fn before_forward(&self, step: u32, batch: &Batch) -> Option<Batch> {
        let reversed = || Batch {
            tokens: batch.tokens.iter().rev().copied().collect(),
            targets: batch.targets.iter().rev().copied().collect(),
            ..batch.clone()
        };
        (step >= self.from_step).then(reversed)
    }
}
