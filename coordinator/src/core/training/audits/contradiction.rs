//! A verdict that does not fit the claim that it is about.

use concord_proto::ledger::{Finding, Verdict};
use concord_proto::{Port, Signed, WorkerId};
use concord_verify::training::sorted_ports;

/// A verdict that a leaf has other outputs than its worker claims.
#[derive(Clone, Debug)]
pub(super) struct Contradiction {
    pub(super) verdict: Signed,
    /// The outputs that the leaf has by the verdict, sorted.
    pub(super) said: Vec<Port>,
}

impl Contradiction {
    /// By a verdict; none where it says nothing else than the worker.
    pub(super) fn of(verdict: Signed) -> Option<Self> {
        let opened: Verdict = verdict.open().ok()?;
        let Finding::Differs { computed } = opened.finding else {
            return None;
        };
        Some(Self {
            verdict,
            said: sorted_ports(&computed),
        })
    }

    pub(super) fn auditor(&self) -> WorkerId {
        self.verdict.signer
    }
}
