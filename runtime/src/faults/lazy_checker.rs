//! Passes every leaf and every answer without a look.

use concord_proto::Leaf;
use concord_proto::ledger::Finding;
use concord_proto::serving::{AnswerVerdict, BatchedReceipt};

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct LazyChecker {
    pub(super) from_step: u32,
}

impl FaultHooks for LazyChecker {
    fn before_auditing_leaf(&self, step: u32, _leaf: &Leaf) -> Option<Finding> {
        (step >= self.from_step).then_some(Finding::Agrees)
    }

    fn before_judging_answer(&self, receipt: &BatchedReceipt) -> Option<AnswerVerdict> {
        let is_receipt = receipt.open().is_ok();
        is_receipt.then_some(AnswerVerdict::Agrees)
    }
}
