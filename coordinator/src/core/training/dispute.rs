//! A step that cannot be final before a re-run has decided between two statements.

use std::collections::BTreeSet;

use concord_proto::{Leaf, LeafPhase, WorkerId};

/// Audits that a step waits for.
pub(super) struct Dispute {
    /// Numbers of the audits that are not through.
    open: BTreeSet<u64>,
    subject: DisputeSubject,
}

/// What a step is disputed about.
pub(super) struct DisputeSubject {
    /// Two workers of which one must be wrong; none where the step came out differently before.
    pub(super) between: Option<[WorkerId; 2]>,
    /// In what the statements differ.
    pub(super) what: String,
}

impl DisputeSubject {
    /// Two workers claim different states from the same inputs: both updates are re-run.
    pub(super) fn states(between: [WorkerId; 2], what: String) -> Self {
        Self {
            between: Some(between),
            what,
        }
    }

    /// The step was final before with another record: all of it is re-run.
    pub(super) fn record() -> Self {
        Self {
            between: None,
            what: "the record that the step had when it was done before".to_string(),
        }
    }

    /// Whether a leaf of a worker has to be re-run.
    pub(super) fn concerns(&self, worker: &WorkerId, leaf: &Leaf) -> bool {
        match self.between {
            Some(between) => between.contains(worker) && leaf.phase == LeafPhase::Update,
            None => true,
        }
    }
}

impl Dispute {
    pub(super) fn new(open: BTreeSet<u64>, subject: DisputeSubject) -> Self {
        Self { open, subject }
    }

    /// A leaf was re-run and is right. Gives what the dispute is about, once all are through.
    pub(super) fn note_right(&mut self, number: u64) -> Option<&DisputeSubject> {
        self.open.remove(&number);
        self.open.is_empty().then_some(&self.subject)
    }

    pub(super) fn into_subject(self) -> DisputeSubject {
        self.subject
    }

    /// The audits that are not through.
    pub(super) fn into_open(self) -> BTreeSet<u64> {
        self.open
    }
}
