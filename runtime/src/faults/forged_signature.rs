//! Sends a claim whose signature is not its own.

use concord_proto::Signed;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct ForgedSignature {
    pub(super) from_step: u32,
}

impl FaultHooks for ForgedSignature {
    fn before_sending_claim(&self, step: u32, claim: &mut Signed) {
        if step >= self.from_step {
            claim.signature[7] ^= 1;
        }
    }
}
