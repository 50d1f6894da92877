//! What always holds between two events.

use super::{Core, Job};

impl Core {
    /// Panics where the state contradicts itself: a bug, never the world's fault.
    ///
    /// # Panics
    /// Naming the invariant.
    pub fn assert_invariants(&self) {
        self.jobs.values().for_each(Job::assert_invariants);
        for convicted in self.pool.convicted() {
            assert!(
                self.pool.session(&convicted).is_none(),
                "a convicted key has a session"
            );
        }
        let working = self.jobs.values().filter(|job| job.active.is_some());
        assert!(working.count() <= 1, "two jobs have a plan");
    }
}

impl Job {
    fn assert_invariants(&self) {
        let spec = self.spec();
        let state = self.states.get(&self.committed);
        let tensors = state.map(Vec::len);
        assert_eq!(tensors, Some(spec.trainable.len()), "no committed state");
        assert!(self.committed <= spec.steps, "more steps than the job has");
        assert!(self.checkpoints.contains_key(&0), "the start is gone");
        let newest = self.checkpoints.keys().next_back();
        assert!(
            newest.is_none_or(|&step| step <= self.committed),
            "a checkpoint of a step that is not final"
        );
        for (step, record) in &self.records {
            let previous = step.checked_sub(1).and_then(|p| self.records.get(&p));
            let is_first = *step == 0 && record.previous == self.id.0;
            let is_linked = previous.is_none_or(|p| record.previous == p.digest());
            assert!(is_first || (*step > 0 && is_linked), "a broken chain");
        }
        if let Some(attempt) = &self.attempt {
            let active = self.active.as_ref();
            assert!(
                active.is_some_and(|a| a.all_ready()),
                "a step without a plan"
            );
            assert_eq!(attempt.step, self.committed, "a step out of turn");
        }
        let open = self.audits.open.values();
        for audit in open {
            let is_final = audit.step < self.committed;
            let is_contested = self.attempt.as_ref().is_some_and(|a| a.contest.is_some());
            assert!(is_final || is_contested, "an audit of a step that is void");
        }
        if self.is_over() {
            assert!(self.active.is_none(), "a plan of a job that is over");
            assert!(self.audits.open.is_empty(), "audits of a job that is over");
        }
    }
}
