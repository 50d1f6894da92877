//! A verdict that does not fit the claim that it is about.

use concord_proto::ledger::{Finding, Verdict};
use concord_proto::{Leaf, Port, Signed, WorkerId};
use concord_verify::training::sorted_ports;

use crate::core::persisted::PersistedContradiction;

/// A verdict, and what follows from it if it is true.
#[derive(Clone, Debug)]
pub(super) struct Contradiction {
    pub(super) verdict: Signed,
    /// The outputs that the checker was shown.
    pub(super) shown: Vec<Port>,
    /// The outputs that the leaf has by the verdict, sorted.
    pub(super) said: Vec<Port>,
    /// Whether it says that it has computed something else than the worker claims.
    pub(super) accuses: bool,
}

impl Contradiction {
    /// By a verdict on a leaf that was shown with these outputs; none where it says nothing.
    pub(super) fn of(verdict: Signed, shown: Vec<Port>) -> Option<Self> {
        let opened: Verdict = verdict.open().ok()?;
        let (said, accuses) = match opened.finding {
            Finding::Agrees => (sorted_ports(&shown), false),
            Finding::Differs { computed } => (sorted_ports(&computed), true),
            Finding::Inconclusive { .. } => return None,
        };
        Some(Self {
            verdict,
            shown,
            said,
            accuses,
        })
    }

    pub(super) fn restore(persisted: PersistedContradiction) -> Option<Self> {
        Self::of(persisted.verdict, persisted.shown)
    }

    pub(super) fn persisted(&self) -> PersistedContradiction {
        PersistedContradiction {
            verdict: self.verdict.clone(),
            shown: self.shown.clone(),
        }
    }

    pub(super) fn auditor(&self) -> WorkerId {
        self.verdict.signer
    }

    /// Whether the checker was shown what the worker claims.
    pub(super) fn is_about(&self, leaf: &Leaf) -> bool {
        self.shown == leaf.outputs
    }
}
