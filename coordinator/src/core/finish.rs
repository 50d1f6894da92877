//! The end of a job.

use concord_proto::client::{JobEvent, JobState, Submission};
use concord_proto::ledger::LedgerEvent;
use concord_proto::{Digest, Domain};

use super::desk::Desk;
use super::job::Job;
use super::kept::Change;

impl Job {
    /// All steps are final and the last state is stored: done, once no audit is open.
    pub(super) fn finish(&mut self, desk: &mut Desk) {
        if !self.audits.open.is_empty() {
            self.state = JobState::Auditing;
            return;
        }
        let Some(state) = self.checkpoints.get(&self.committed) else {
            return;
        };
        let state = Digest::of_value(Domain::Blob, state);
        let record = self.head();
        self.write(desk, LedgerEvent::Completed { record });
        let (audits, inconclusive) = (self.audits.agreed, self.audits.inconclusive);
        self.end(desk, JobState::Completed { record, state });
        let completed = JobEvent::Completed {
            record,
            state,
            audits,
            inconclusive,
        };
        self.publish(desk, completed);
    }

    /// A client stops the job. Its checkpoints stay.
    pub(super) fn cancel(&mut self, desk: &mut Desk) {
        if !self.is_over() {
            self.end(desk, JobState::Cancelled);
            self.publish(desk, JobEvent::Cancelled);
        }
    }

    /// A client submits a job again that was given up: it goes on where it was, as the client wants
    /// it now, behind all others (`number`). Of a job that is not over nothing changes.
    pub(super) fn revive(&mut self, desk: &mut Desk, number: u32, submission: Submission) {
        if !matches!(self.state, JobState::Failed(_) | JobState::Cancelled) {
            return;
        }
        self.set_aside.clear();
        self.gave_up.clear();
        self.holding.clear();
        self.learned.held();
        self.number = number;
        self.submission = submission;
        self.reason = "it was submitted again".to_string();
        desk.out.keep(Change::Job {
            job: self.id,
            number,
            submission: Box::new(self.submission.clone()),
        });
        // In any case: to who watches, an end after which nothing comes is the end of the job.
        let what = "to go on".to_string();
        self.state = JobState::Waiting(what.clone());
        self.publish(desk, JobEvent::Waiting(what));
    }
}
