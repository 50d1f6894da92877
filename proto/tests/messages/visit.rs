//! Every type that leaves a process, for what is done with each.

use std::fmt::Debug;

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::Conviction;
use concord_proto::client::{ClientRequest, ClientResponse, JobEvent};
use concord_proto::ledger::LedgerEvent;
use concord_proto::serving::{AnswerVerdict, FromStage, ToStage};
use concord_proto::session::{ToCoordinator, ToWorker};

use super::{Source, Variants};

/// What every message can do.
pub trait Message: BorshSerialize + BorshDeserialize + PartialEq + Debug {}
impl<T: BorshSerialize + BorshDeserialize + PartialEq + Debug> Message for T {}

/// Does something with every type of message.
pub trait Visitor {
    /// `make` gives a value of the type; `variants` is how many there are for an enum.
    fn visit<T: Message>(&mut self, name: &str, variants: u64, make: fn(&mut Source, u64) -> T);
}

/// Shows every type to the visitor.
pub fn visit_all(visitor: &mut impl Visitor) {
    visitor.visit("ToCoordinator", ToCoordinator::count(), |s, v| s.sent_up(v));
    visitor.visit("ToWorker", ToWorker::count(), |s, v| s.sent_down(v));
    visitor.visit("ClientRequest", ClientRequest::count(), |s, v| {
        s.client_request(v)
    });
    visitor.visit("ClientResponse", ClientResponse::count(), |s, v| {
        s.client_response(v)
    });
    visitor.visit("JobEvent", JobEvent::count(), |s, v| s.job_event(v));
    visitor.visit("LedgerEntry", LedgerEvent::count(), |s, v| {
        s.ledger_entry(v)
    });
    visitor.visit("Conviction", Conviction::count(), |s, v| s.conviction(v));
    visitor.visit("ToStage", ToStage::count(), |s, v| s.said_to_stage(v));
    visitor.visit("FromStage", FromStage::count(), |s, v| s.said_by_stage(v));
    visitor.visit("AnswerVerdict", AnswerVerdict::count(), |s, v| {
        s.answer_verdict(v)
    });
    visitor.visit("StageAssignment", 1, |s, _| s.stage_assignment());
    visitor.visit("StageStreamHello", 1, |s, _| s.stage_stream_hello());
    visitor.visit("PassHeader", 1, |s, _| s.pass_header());
    visitor.visit("StageClaim", 1, |s, _| s.stage_claim());
    visitor.visit("Receipt", 1, |s, _| s.receipt());
    visitor.visit("ReceiptBatch", 1, |s, _| s.receipt_batch());
    visitor.visit("BatchedReceipt", 1, |s, _| s.batched_receipt());
    visitor.visit("FrameHeader", 1, |s, _| s.frame_header());
    visitor.visit("JobSpec", 1, |s, _| s.spec());
    visitor.visit("Plan", 1, |s, _| s.plan());
    visitor.visit("FirstHalf", 1, |s, _| s.first_half());
    visitor.visit("Claim", 1, |s, _| s.claim());
    visitor.visit("Leaf", 1, |s, _| s.leaf());
    visitor.visit("StepRecord", 1, |s, _| s.record());
    visitor.visit("Signed", 1, |s, _| s.signed());
    visitor.visit("Verdict", 1, |s, _| s.verdict());
    visitor.visit("Enrolment", 1, |s, _| s.enrolment());
    visitor.visit("Reveal", 1, |s, _| s.reveal());
    visitor.visit("Scalars", 1, |s, _| s.scalars());
    visitor.visit("OpenRequest", 1, |s, _| s.open_request());
    visitor.visit("Opening", 1, |s, _| s.opening());
    visitor.visit("AddressChallenge", 1, |s, _| s.address_challenge());
    visitor.visit("AddressProof", 1, |s, _| s.address_proof());
    visitor.visit("WatchRequest", 1, |s, _| s.watch_request());
    visitor.visit("TensorHeader", 1, |s, _| s.tensor_header());
    visitor.visit("MomentHeader", 1, |s, _| s.moment_header());
    visitor.visit("ModelManifest", 1, |s, _| s.model_manifest());
    visitor.visit("DataManifest", 1, |s, _| s.data_manifest());
    visitor.visit("StateManifest", 1, |s, _| s.state_manifest());
    visitor.visit("Path", 1, |s, _| s.path());
}
