//! A step that cannot go on before a re-run has decided between two statements.

use std::collections::BTreeSet;

use concord_proto::{Leaf, LeafPhase, WorkerId};

/// Audits that a step waits for.
pub(super) struct Dispute {
    /// Numbers of the audits that are not through.
    open: BTreeSet<u64>,
    subject: DisputeSubject,
}

/// What a step is disputed about.
pub(super) enum DisputeSubject {
    /// Two workers give different results of the same inputs, of which one must be wrong: the
    /// leaves of this phase are re-run of both.
    Differ {
        between: [WorkerId; 2],
        phase: LeafPhase,
        /// In what they differ.
        what: String,
    },
    /// A value that was reported is no finite number: all that led to it is re-run. Where it is so,
    /// the training diverges; what one worker sends can make it so for another.
    NotFinite {
        /// Which, and what it is.
        what: String,
    },
    /// The step was final before with another record: all of it is re-run.
    Record,
}

impl DisputeSubject {
    /// Whether a leaf of a worker has to be re-run.
    pub(super) fn concerns(&self, worker: &WorkerId, leaf: &Leaf) -> bool {
        match self {
            Self::Differ { between, phase, .. } => between.contains(worker) && leaf.phase == *phase,
            Self::NotFinite { .. } | Self::Record => true,
        }
    }
}

impl Dispute {
    pub(super) fn new(open: BTreeSet<u64>, subject: DisputeSubject) -> Self {
        Self { open, subject }
    }

    /// A leaf was re-run and is right. Says whether all are through.
    pub(super) fn note_right(&mut self, number: u64) -> bool {
        self.open.remove(&number) && self.open.is_empty()
    }

    pub(super) fn into_subject(self) -> DisputeSubject {
        self.subject
    }

    /// What it is about, and the audits that are not through.
    pub(super) fn into_parts(self) -> (DisputeSubject, BTreeSet<u64>) {
        (self.subject, self.open)
    }
}
