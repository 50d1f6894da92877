//! The variants of the messages, each with the number that its encoding begins with.

use concord_proto::Conviction;
use concord_proto::client::{ClientRequest, ClientResponse, JobEvent};
use concord_proto::ledger::LedgerEvent;
use concord_proto::serving::{AnswerVerdict, FromStage, ToStage};
use concord_proto::session::{ToCoordinator, ToWorker};

/// An enum whose variants are listed below.
pub trait Variants {
    /// In the order of the type, which is that of the encoding.
    const NAMES: &'static [&'static str];

    fn name(&self) -> &'static str;

    /// How many values a maker is asked for.
    fn count() -> u64 {
        Self::NAMES.len() as u64
    }
}

/// The match is over all variants: one that is missing here does not compile, and one that is here
/// and has no maker panics.
macro_rules! variants {
    ($type:ident: $($variant:ident)+) => {
        impl Variants for $type {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn name(&self) -> &'static str {
                match self {
                    $($type::$variant { .. } => stringify!($variant)),+
                }
            }
        }
    };
}

variants!(
    ToCoordinator: Hello Heartbeat Ready Failed Computed Updated Flushed Verdict Enrolled Revealed
        Drain OutOfMemory StandsBy StageFailed AnswerVerdict Unreached
);
variants!(
    ToWorker: Welcome Refused Assign Step Scalars Commit Audited Enrol Reveal Abort Flush Forget
        Audit Leave Challenge Serve Unserve AuditAnswer Unreached
);
variants!(ClientRequest: MissingBlobs Submit Jobs Status Cancel Bundle Fetched);
variants!(ClientResponse: MissingBlobs Submitted Jobs Status Cancelled Bundle Refused Noted);
variants!(JobEvent: Waiting Planned Step Lost Audited Convicted Voided Completed Failed Cancelled
    Evaluated Stopped Saved);
variants!(
    LedgerEvent: Opened Enrolled Planned Started Auditing Revealed Committed Judged
        Convicted Voided Completed
);
variants!(Conviction: WrongResult FalseVerdict BrokenRule Equivocation);
variants!(
    AnswerVerdict: Agrees WrongStage Gap WrongDraw WrongLogprob Altered Inconclusive
);
variants!(ToStage: Pass Draws Claim Evidence Forget AddAdapter RemoveAdapter);
variants!(FromStage: Passed Result Claimed Evidence Adapter Refused Failed);
