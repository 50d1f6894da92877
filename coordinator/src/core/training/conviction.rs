//! Who is to be convicted, and of what.

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;
use concord_verify::training::Breach;

/// A party that is to be convicted.
pub(super) struct Conviction {
    pub(super) culprit: WorkerId,
    pub(super) offence: Offence,
    pub(super) evidence: String,
    /// The step of a leaf that was found wrong.
    pub(super) wrong: Option<u32>,
}

impl Conviction {
    /// For an offence other than a wrong leaf.
    pub(super) fn new(culprit: WorkerId, offence: Offence, evidence: String) -> Self {
        Self {
            culprit,
            offence,
            evidence,
            wrong: None,
        }
    }

    /// For the breach of a rule.
    pub(super) fn of_breach(breach: Breach) -> Self {
        Self::new(breach.culprit, breach.offence, breach.evidence)
    }
}
