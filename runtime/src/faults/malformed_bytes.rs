//! Sends bytes that are no message, under a good signature.

use concord_proto::session::ToCoordinator;
use concord_proto::{Keypair, Signed};

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct MalformedBytes {
    pub(super) from_step: u32,
}

impl FaultHooks for MalformedBytes {
    fn before_reporting(&self, key: &Keypair, report: &ToCoordinator) -> Option<Signed> {
        let ToCoordinator::Computed { step, .. } = report else {
            return None;
        };
        let garbage = || Signed::new(key, &[0xffu8; 40]);
        (*step >= self.from_step).then(garbage)
    }
}
