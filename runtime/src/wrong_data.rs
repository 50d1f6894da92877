//! The cheat of `concord demo`: a worker that computes on other data than it signs for. Compiled
//! only with the feature `wrong-data`; no option of a command line reaches it.

use concord_models::decoder::Batch;

/// Computes on other tokens than it claims.
#[derive(Clone, Copy, Debug)]
pub struct WrongData {
    /// The first false step, from 0.
    pub from_step: u32,
}

impl WrongData {
    /// What is computed in place of `batch`, the batch of `step`; nothing where it is honest. A
    /// stage in the middle of a pipeline sees no batch and has nothing to lie about.
    pub(crate) fn in_place_of(self, step: u32, batch: &Batch) -> Option<Batch> {
        let reversed = || Batch {
            tokens: batch.tokens.iter().rev().copied().collect(),
            targets: batch.targets.iter().rev().copied().collect(),
            ..batch.clone()
        };
        (step >= self.from_step).then(reversed)
    }
}
