//! What can be done for a job now. Called after every event.

use concord_proto::client::{JobEvent, JobState};
use concord_proto::ledger::Offence;
use concord_proto::session::ToWorker;
use concord_proto::{Digest, Domain, TensorState, WorkerId, canonical};

use super::active_plan::ActivePlan;
use super::charge::Charge;
use super::flush::{Flush, FlushCheck, FlushReport};
use super::{Change, CoreEffect, EventContext, TrainingJob};

/// A worker that says that its state is stored when it is not is left alone for this long.
const LIAR_PAUSE_US: u64 = 60_000_000;

impl TrainingJob {
    /// Does all that can be done now.
    pub(in crate::core) fn advance(&mut self, context: &mut EventContext) {
        if self.is_over() {
            return;
        }
        self.get_on(context);
        if !self.is_over() {
            self.tell_waiting(context);
        }
    }

    fn get_on(&mut self, context: &mut EventContext) {
        self.run_auditors(context);
        self.run_audits(context);
        self.drop_stalled(context);
        if self.is_over() || self.fails_by_its_loss(context) {
            return;
        }
        if self.all_committed() && self.committed.is_stored() {
            self.finish(context);
            return;
        }
        let is_ready = self.planning.active().is_some_and(ActivePlan::all_ready);
        if self.attempt.is_none() && is_ready {
            self.boundary(context);
        }
        if !self.is_over() && self.planning.active().is_none() {
            self.recover(context);
        }
    }

    /// Hands out what waits to be re-run, takes back what was not answered, gives up what cannot be
    /// audited.
    fn run_audits(&mut self, context: &mut EventContext) {
        self.crew.set_accused(self.audits.accused());
        for queued in self.audits.take_back(context, self.order.trains_all()) {
            let (journal, order) = (&mut self.journal, &self.order);
            let decisions = self.audits.hand_out(context, journal, order, queued);
            self.carry_out(context, decisions);
        }
    }

    /// Between two steps: leave, plan anew, hold back, or go on.
    fn boundary(&mut self, context: &mut EventContext) {
        if !self.planning.is_handed_over() && !self.all_committed() {
            let why = self.wants_new_plan(context);
            self.planning.set_handover(why);
        }
        if self.is_held_by_save() {
            return;
        }
        if self.planning.is_handed_over() || self.all_committed() {
            if self.committed.is_stored() || !self.flush_committed(context) {
                self.planning.hand_over();
                self.retire(context);
            }
            return;
        }
        if self.best_is_to_be_stored() {
            if !self.flush_committed(context) {
                self.retire(context);
            }
            return;
        }
        let window = self.audit_window(context.config);
        let oldest = self.oldest_open_step();
        let steps = self.committed.steps();
        if oldest.is_some_and(|oldest| steps >= oldest.saturating_add(window)) {
            return;
        }
        if self.awaits_auditors(context) {
            return;
        }
        if self.is_to_save() {
            self.flush_committed(context);
        }
        self.start_step(context);
    }

    /// Whether a client is to get the present state, and it is not in the store.
    fn is_to_save(&self) -> bool {
        self.is_saved_after(self.committed.steps()) && !self.committed.is_stored()
    }

    /// Whether a client is to get the state after `steps` steps.
    fn is_saved_after(&self, steps: u32) -> bool {
        let is_end = steps == self.committed.steps() && self.all_committed();
        self.saves.is_due(self.spec(), steps, is_end)
    }

    /// Whether an earlier state that a client is to get is still on its way into the store.
    pub(super) fn is_saving_earlier(&self) -> bool {
        let steps = self.committed.steps();
        let mut flush = self.flush.iter();
        flush.any(|flush| flush.step() < steps && self.is_saved_after(flush.step()))
    }

    /// Whether the next step has to wait for that, because the present state is to be stored, too,
    /// and one flush replaces another.
    pub(super) fn is_held_by_save(&self) -> bool {
        let is_next = self.is_to_save()
            || self.best_is_to_be_stored()
            || self.planning.is_handed_over()
            || self.all_committed();
        is_next && self.is_saving_earlier()
    }

    /// A client has the state after so many updates.
    pub(in crate::core) fn note_fetched(&mut self, context: &mut EventContext, updates: u32) {
        let is_done = matches!(self.state, JobState::Completed { .. });
        self.saves.fetched(self.order.spec(), updates, is_done);
        self.drop_checkpoints(context);
    }

    /// Drops the states in the store that nobody needs.
    pub(super) fn drop_checkpoints(&mut self, context: &mut EventContext) {
        let oldest = self.oldest_open_step();
        let floor = oldest.unwrap_or(self.committed.steps());
        let is_done =
            self.all_committed() && self.committed.is_stored() && self.oldest_open_step().is_none();
        let waits = |steps| self.saves.wait_for(steps);
        // Once nobody can be convicted any more, no state is gone back to.
        let steps = match is_done {
            true => self.committed.drop_all_old(self.order.spec(), waits),
            false => self.committed.drop_old(self.order.spec(), floor, waits),
        };
        if !steps.is_empty() {
            let job = self.order.id;
            context.out.persist(Change::DropCheckpoints { job, steps });
        }
    }

    /// Without a plan: see to it that the committed state is in the store, then plan.
    fn recover(&mut self, context: &mut EventContext) {
        if self.flush.is_some() {
            return;
        }
        if !self.crew.are_back(context) {
            return self.wait_for(context, "its workers to come back".to_string());
        }
        let is_stored = self.committed.is_stored();
        if is_stored || !self.flush_committed(context) {
            self.plan_anew(context, is_stored);
        }
    }

    /// Brings the committed state into the store, unless that is under way. False if the workers
    /// that are left do not hold all of it.
    pub(super) fn flush_committed(&mut self, context: &mut EventContext) -> bool {
        let step = self.committed.steps();
        if self
            .flush
            .as_ref()
            .is_some_and(|flush| flush.step() == step)
        {
            return true;
        }
        // After a crash between persisting a step and telling so, all workers are one step behind.
        for step in [Some(step), step.checked_sub(1)].into_iter().flatten() {
            let Some(entries) = self.committed.state_at(step).cloned() else {
                continue;
            };
            let Some(wanted) = self.crew.covering(context, self.order.spec(), step) else {
                continue;
            };
            let pauses = |id: &&WorkerId| {
                let member = context.members.get(id);
                member.is_some_and(|member| member.unfit_until > context.now)
            };
            if let Some(worker) = wanted.keys().find(pauses).copied() {
                // It could not store its state just now; going back would lose steps.
                let member = context.members.get(&worker);
                let trouble = member.map_or("", |member| &member.trouble);
                let who = worker.short();
                let what = format!("worker {who} to store its state; the last time: {trouble}");
                self.wait_for(context, what);
                return true;
            }
            if step < self.committed.steps() {
                self.rewind_to(context, step, entries.clone());
            }
            let job = self.order.id;
            for worker in wanted.keys() {
                context.send(worker, ToWorker::Flush { job });
            }
            self.flush = Some(Flush::new(context.now, step, entries, wanted));
            return true;
        }
        false
    }

    /// A worker has put its part into the store.
    pub(super) fn on_flushed(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        step: u32,
        state: &[TensorState],
    ) {
        let Some(flush) = &mut self.flush else {
            return;
        };
        match flush.report(worker, step, state) {
            FlushReport::Waits => {}
            FlushReport::OtherState { step } => {
                let steps = self.spec().updates_before(step);
                let evidence =
                    format!("it stored another state than the one committed after {steps} steps");
                self.convict(context, Charge::new(worker, Offence::WrongClaim, evidence));
            }
            FlushReport::Complete => {
                let check = self.audits.next_number();
                let blobs = flush.begin_check(check);
                context.out.tell(CoreEffect::CheckBlobs { check, blobs });
            }
        }
    }

    /// The store was looked through for the blobs of the flush.
    pub(in crate::core) fn on_blobs_checked(
        &mut self,
        context: &mut EventContext,
        check: u64,
        missing: &[Digest],
    ) {
        let Some(flush) = self.flush.take_if(|flush| flush.is_checked_by(check)) else {
            return;
        };
        match flush.finish(missing) {
            FlushCheck::Stored(state) => {
                let job = self.order.id;
                context.out.store(canonical::encode(&state));
                context.out.persist(Change::Checkpoint {
                    job,
                    state: state.clone(),
                });
                let (steps, digest) = (state.step, Digest::of_value(Domain::Blob, &state));
                self.committed.add_checkpoint(state);
                let spec = self.order.spec();
                let is_end = self.committed.end(spec) == Some(steps);
                if self.saves.add(spec, steps, is_end) {
                    let saved = JobEvent::Saved {
                        steps: spec.updates_before(steps),
                        state: digest,
                    };
                    self.journal.publish(context, saved);
                }
                self.drop_checkpoints(context);
            }
            FlushCheck::Missing(worker) => {
                context.members.pause(context.now, &worker, LIAR_PAUSE_US);
                let reason = "it said that its state is stored, and it is not";
                self.lose(context, worker, reason);
            }
            FlushCheck::Unexplained => {}
        }
    }
}
