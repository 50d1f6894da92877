//! Goes on with the weights of an old step.

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct StaleWeights {
    pub(super) from_step: u32,
}

impl FaultHooks for StaleWeights {
    fn keeps_weights_at_commit(&self, step: u32) -> bool {
        step >= self.from_step
    }
}
