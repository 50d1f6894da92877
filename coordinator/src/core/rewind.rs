//! Going back: steps that were final are done again.

use concord_proto::client::JobEvent;
use concord_proto::ledger::LedgerEvent;
use concord_proto::manifest::StateEntry;

use super::desk::Desk;
use super::job::Job;
use super::kept::Change;

impl Job {
    /// Goes back to the newest checkpoint, because nobody is left that holds what came after. The
    /// records of the steps since then stay: the steps must come out equal again.
    pub(super) fn fall_back(&mut self, desk: &mut Desk) {
        let to = self.newest_checkpoint(self.committed).unwrap_or(0);
        if let Some(state) = self.checkpoints.get(&to) {
            let entries = state.entries.clone();
            self.rewind_to(desk, to, &entries);
        }
    }

    /// Goes back to the newest checkpoint at or before `step`, because what came after is in doubt.
    /// Nothing of the records from there on is kept.
    pub(super) fn void_from(&mut self, desk: &mut Desk, step: u32) {
        let to = self
            .newest_checkpoint(step.min(self.committed))
            .unwrap_or(0);
        if let Some(state) = self.checkpoints.get(&to) {
            let entries = state.entries.clone();
            self.rewind_to(desk, to, &entries);
        }
        self.forget_records(desk);
    }

    /// Gives up records that were to come out equal again.
    pub(super) fn forget_records(&mut self, desk: &mut Desk) {
        let (job, from_step) = (self.id, self.committed);
        self.records.retain(|step, _| *step < from_step);
        desk.out.keep(Change::Truncate { job, from_step });
    }

    /// Makes `to` the number of committed steps; `entries` is the state then.
    pub(super) fn rewind_to(&mut self, desk: &mut Desk, to: u32, entries: &[StateEntry]) {
        if to >= self.committed {
            return;
        }
        self.flush = None;
        self.void_audits(desk, to);
        self.committed = to;
        self.first_part.retain(|_, first| *first < to);
        self.states.clear();
        self.states.insert(to, entries.to_vec());
        let job = self.id;
        let steps: Vec<u32> = self.checkpoints.range(to + 1..).map(|(&s, _)| s).collect();
        if !steps.is_empty() {
            self.checkpoints.retain(|&step, _| step <= to);
            desk.out.keep(Change::DropCheckpoints { job, steps });
        }
        self.write(desk, LedgerEvent::Voided { from_step: to });
        self.publish(desk, JobEvent::Voided { from_step: to });
    }
}
