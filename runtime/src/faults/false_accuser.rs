//! Calls every leaf and every answer wrong, without a look.

use concord_proto::ledger::Finding;
use concord_proto::serving::{AnswerVerdict, BatchedReceipt, StageClaim};
use concord_proto::{Digest, Leaf, Port};

use super::FaultHooks;

/// What it says that it has computed.
const INVENTED: Digest = Digest([0x5a; 32]);

#[derive(Debug)]
pub(super) struct FalseAccuser {
    pub(super) from_step: u32,
}

impl FaultHooks for FalseAccuser {
    fn before_auditing_leaf(&self, step: u32, leaf: &Leaf) -> Option<Finding> {
        let invented = |port: &Port| Port {
            kind: port.kind,
            digest: INVENTED,
        };
        let computed = leaf.outputs.iter().map(invented).collect();
        (step >= self.from_step).then_some(Finding::Differs { computed })
    }

    fn before_judging_answer(&self, receipt: &BatchedReceipt) -> Option<AnswerVerdict> {
        let receipt = receipt.open().ok()?;
        let signed = receipt.claims.first()?;
        let claim: StageClaim = signed.open().ok()?;
        Some(AnswerVerdict::WrongStage {
            worker: signed.signer,
            layers: claim.layers,
            expected: INVENTED,
            claimed: claim.output,
        })
    }
}
