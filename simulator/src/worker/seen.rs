//! What a worker remembers of steps that are final, and of the ledger.

use super::*;

impl Worker {
    /// What opens a leaf of a step under a plan, if it is still held.
    pub fn opened(&self, at: (u32, u32), leaf: LeafKey) -> Option<Openings> {
        let audited = self.audited.get(&at);
        let is_held = audited.is_none_or(|audited| audited.contains(&leaf));
        is_held.then(|| self.openings.get(&at).cloned()).flatten()
    }

    /// The attempt that an entry starts: attempts rise, whatever happens in between.
    pub(super) fn attempt(&mut self, started: &Signed) -> (AttemptId, Option<AttemptId>) {
        let entry: LedgerEntry = started.open().expect("a signed entry");
        let LedgerEvent::Started { attempt, .. } = entry.event else {
            panic!("a step is started by {entry:?}");
        };
        let id = AttemptId {
            number: attempt,
            entry: entry_digest(started),
        };
        let previous = self.last_attempt.replace(id);
        let rises = previous.is_none_or(|previous| previous.number < attempt);
        assert!(rises, "an attempt comes again");
        (id, previous)
    }

    /// What a reconnecting worker says it holds.
    pub fn held(&self) -> Option<Held> {
        self.stage.as_ref().map(|stage| Held {
            job: stage.job,
            step: stage.done,
            layers: stage.layers,
        })
    }

    /// Puts the committed state into the store.
    pub(super) fn flush(&mut self, job: JobId) -> Vec<Act> {
        let Some(stage) = self.stage.as_ref().filter(|stage| stage.job == job) else {
            return Vec::new();
        };
        if self.lie.is_some_and(|lie| lie.kind == Kind::SilentFlush) {
            return Vec::new();
        }
        let mut state: Vec<TensorState> = stage
            .states
            .iter()
            .map(|(&tensor, &entry)| TensorState { tensor, entry })
            .collect();
        if self.lie.is_some_and(|lie| lie.flushes_other()) {
            state[0].entry.value = fake::mix("other", &[state[0].entry.value]);
        }
        let blobs = state
            .iter()
            .flat_map(|s| [s.entry.value, s.entry.first_moment, s.entry.second_moment]);
        let blobs = blobs.collect();
        let step = stage.done;
        let flushed = ToCoordinator::Flushed { job, step, state };
        vec![Act::Store(blobs), Act::Say(flushed)]
    }
}
