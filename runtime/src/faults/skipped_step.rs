//! Claims the state before a step as the state after it.

use super::{FaultHooks, StateMut, StateRef};

#[derive(Debug)]
pub(super) struct SkippedStep {
    pub(super) from_step: u32,
}

impl FaultHooks for SkippedStep {
    fn after_update(&self, step: u32, committed: StateRef<'_>, updated: StateMut<'_>) {
        if step >= self.from_step {
            *updated.state = committed.state.clone();
            *updated.entries = committed.entries.to_vec();
        }
    }
}
