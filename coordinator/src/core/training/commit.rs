//! A step becomes final: its record, its claims and its ledger entry are persisted together, then
//! told.

use concord_proto::client::JobEvent;
use concord_proto::ledger::{LedgerEvent, claim_digest};
use concord_proto::session::ToWorker;
use concord_proto::{Digest, StepRecord, WorkerId};

use super::audits::AuditedLeaves;
use super::planned_step::PlannedStep;
use super::{Change, EventContext, Time, TrainingJob};

impl TrainingJob {
    /// The record that the claims of the step being done give.
    pub(super) fn next_record(&mut self) -> Option<StepRecord> {
        let head = self.committed.head(self.order.id);
        let (attempt, basis) = self.under_way()?;
        attempt.record(&basis, head)
    }

    /// Makes the step final although it came out differently before: all of it was re-run.
    pub(super) fn commit_disputed(&mut self, context: &mut EventContext) {
        self.forget_records(context);
        if let Some(record) = self.next_record() {
            self.commit(context, record);
        }
    }

    pub(super) fn commit(&mut self, context: &mut EventContext, record: StepRecord) {
        let attempt = self.attempt.as_ref();
        let Some(after) = attempt.and_then(|attempt| attempt.state_after(self.spec())) else {
            return;
        };
        let (Some(active), Some(attempt)) = (self.planning.active(), self.attempt.take()) else {
            return;
        };
        let (plan, workers) = (active.plan().clone(), active.workers());
        let Some(finished) = attempt.finish(&workers) else {
            return;
        };
        let claims = finished.claims;
        let digests: Vec<Digest> = claims
            .claims
            .iter()
            .map(|c| claim_digest(&c.claim))
            .collect();
        let committed = LedgerEvent::Committed {
            attempt: finished.id.number,
            step: claims.step,
            epoch: plan.epoch,
            record: record.digest(),
            claims: digests,
        };
        let committed = self.journal.write(context, committed);
        let entry = self.journal.head();
        self.committed
            .commit(self.order.spec(), &record, after, &workers);
        self.crew
            .note_committed(context, &plan, self.committed.steps());
        let at = PlannedStep {
            step: claims.step,
            epoch: plan.epoch,
        };
        let of = (self.order.id, finished.id.number);
        let told = (committed, entry);
        let is_awaited = self.auditors.committed(context, of, at, told, &claims);
        self.tell_commit(context, &workers, &record);
        if !is_awaited {
            self.tell_audited(context, at, &workers, AuditedLeaves::new());
        }
        self.tell_watchers(context, finished.started, &record);
        let attempt = finished.id.number;
        context.out.persist(Change::Step {
            attempt,
            record,
            claims,
        });
        // A checkpoint that is due while another is on its way into the store is skipped, unless it
        // is the last: a new flush replaces the one under way, and with frequent checkpoints none
        // would ever get there.
        let replaces = self.all_committed() && !self.is_saving_earlier();
        if self.checkpoint_is_due() && (self.flush.is_none() || replaces) {
            self.flush_committed(context);
        }
    }

    fn tell_commit(
        &mut self,
        context: &mut EventContext,
        workers: &[WorkerId],
        record: &StepRecord,
    ) {
        let (job, epoch, step) = (self.order.id, self.planning.epoch(), record.step);
        let oldest = self.oldest_open_step();
        let release_below = oldest.unwrap_or(self.committed.steps());
        for worker in workers {
            let message = ToWorker::Commit {
                job,
                epoch,
                step,
                record: record.digest(),
                release_below,
            };
            context.send(worker, message);
        }
    }

    fn tell_watchers(&mut self, context: &mut EventContext, started: Time, record: &StepRecord) {
        let event = self.event_of(record, context.now.since(started));
        match event {
            JobEvent::Evaluated { .. } => self.tell_evaluated(context, event),
            event => self.journal.publish(context, event),
        }
    }

    /// Whether the present state is due as a checkpoint.
    fn checkpoint_is_due(&self) -> bool {
        let every = self.options().checkpoint_every;
        let (spec, steps) = (self.spec(), self.committed.steps());
        let is_update = steps
            .checked_sub(1)
            .is_some_and(|last| !spec.is_evaluation(last));
        let is_multiple = || is_update && spec.updates_before(steps).is_multiple_of(every);
        self.all_committed() || (every > 0 && is_multiple())
    }
}
