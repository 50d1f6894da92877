//! Sends the claim of the step before.

use std::sync::{Mutex, PoisonError};

use concord_proto::Signed;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct ReplayedClaim {
    from_step: u32,
    /// The claim that belongs to the step before.
    last: Mutex<Option<Signed>>,
}

impl ReplayedClaim {
    pub(super) fn new(from_step: u32) -> Self {
        let last = Mutex::default();
        Self { from_step, last }
    }
}

impl FaultHooks for ReplayedClaim {
    fn before_sending_claim(&self, step: u32, claim: &mut Signed) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.replace(claim.clone());
        if let Some(last) = last.filter(|_| step >= self.from_step) {
            *claim = last;
        }
    }
}
