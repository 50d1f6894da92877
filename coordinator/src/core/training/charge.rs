//! Who is said to be guilty of what, and what shows it.

use concord_proto::ledger::Offence;
use concord_proto::{Conviction, WorkerId};
use concord_verify::training::Breach;

/// A party that is said to be guilty. It is convicted where an object shows the offence to others,
/// and left out of the job where none does.
pub(super) struct Charge {
    pub(super) culprit: WorkerId,
    pub(super) offence: Offence,
    pub(super) evidence: String,
    pub(super) conviction: Option<Box<Conviction>>,
    /// The step of a leaf that was found wrong.
    pub(super) wrong: Option<u32>,
}

impl Charge {
    /// For an offence that nothing shows to others.
    pub(super) fn new(culprit: WorkerId, offence: Offence, evidence: String) -> Self {
        Self {
            culprit,
            offence,
            evidence,
            conviction: None,
            wrong: None,
        }
    }

    /// For the breach of a rule.
    pub(super) fn of_breach(breach: Breach) -> Self {
        Self {
            conviction: breach.conviction,
            ..Self::new(breach.culprit, breach.offence, breach.evidence)
        }
    }
}
