//! Workers that fail, stall, run out of memory or do not reach each other: these are no offences,
//! and nobody is convicted.

use concord_proto::WorkerId;
use concord_proto::session::ToWorker;

use super::active_plan::ActivePlan;
use super::crew::GaveUp;
use super::learned_memory::{SHORTAGES_MAX, Shortage};
use super::{EventContext, TrainingJob};

/// Failures in a row after which the state of a worker is given up. Fewer are tolerated: the store
/// may have been full.
const FAILURES_MAX: u32 = 6;

/// A step that takes more than this many times its predicted time has stalled.
const STALL_STEPS: u64 = 20;

impl TrainingJob {
    /// A worker says that it cannot load its stage, do its part of the step or store its state. It
    /// still holds the committed state, unless it fails again and again. `permanent` tells that
    /// others would fail in the same way.
    pub(super) fn on_failed(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        epoch: u32,
        reason: String,
        permanent: bool,
    ) {
        // Others have no part in it, and nothing to say about it.
        let is_asked = self.is_planned(&worker) || self.is_flushed_by(&worker);
        if epoch != self.planning.epoch() || !is_asked || self.is_over() {
            return;
        }
        if permanent {
            return self.on_hopeless(context, worker, reason);
        }
        if context.members.failed(context.now, &worker) > FAILURES_MAX {
            self.crew.forget_held(&worker);
        }
        self.go_on_without(context, worker, &reason);
    }

    /// A worker says that nobody can do the job. One worker's word does not end it: the others try
    /// without it. If one of them says the same of the same step, the job has failed, unless both
    /// did their part beside the same other worker.
    fn on_hopeless(&mut self, context: &mut EventContext, worker: WorkerId, reason: String) {
        // Only a worker that has a part in the plan can know.
        let active = self.planning.active();
        let Some(active) = active.filter(|active| active.has(&worker)) else {
            return;
        };
        let beside = active.workers().into_iter().filter(|id| *id != worker);
        let beside = beside.collect();
        let gave_up = GaveUp {
            step: self.committed.steps(),
            why: reason.clone(),
            beside,
        };
        if !self.crew.give_up(context, worker, gave_up) {
            return self.fail(context, reason);
        }
        self.drop_flush_of(&worker);
        let who = worker.short();
        let why = match self.crew.is_set_aside(&worker) {
            true => format!("worker {who} says: {reason}; the others try without it"),
            false => format!(
                "worker {who} says: {reason}; so did another one beside the same worker, without \
                 which they try"
            ),
        };
        self.planning.set_reason(why);
        self.retire(context);
    }

    /// A worker of the plan says that it cannot reach another one. The next plan is made without
    /// the one of the two that is at fault.
    pub(super) fn on_unreached(
        &mut self,
        context: &mut EventContext,
        reporter: WorkerId,
        epoch: u32,
        worker: WorkerId,
        why: &str,
    ) {
        let active = self.planning.active_at(epoch);
        let is_of_plan = active.is_some_and(|a| a.has(&reporter) && a.has(&worker));
        if !is_of_plan || reporter == worker {
            return;
        }
        context
            .members
            .note_unreached(context.now, reporter, worker);
        let left_out = self.crew.left_out(context);
        let (by, endpoint) = (reporter.short(), context.place(&worker));
        if left_out.contains(&worker) || !left_out.contains(&reporter) {
            let reason = format!("worker {by} cannot reach it at {endpoint}: {why}");
            let told = format!("worker {by} has tried: {why}");
            context.send(&worker, ToWorker::Unreached { reason: told });
            return self.go_on_without(context, worker, &reason);
        }
        let other = worker.short();
        let reason = format!("it cannot reach worker {other} at {endpoint}: {why}");
        self.go_on_without(context, reporter, &reason);
    }

    /// A worker cannot hold its stage or its part of the step. The next plan gives it less, or
    /// nothing.
    pub(super) fn on_out_of_memory(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        epoch: u32,
        shortage: Shortage,
        reason: &str,
    ) {
        if epoch != self.planning.epoch() || self.is_over() {
            return;
        }
        let active = self.planning.active();
        let counted = active.and_then(|active| active.counted_bytes(&worker));
        let (Some(counted), Some(member)) = (counted, context.members.get(&worker)) else {
            return;
        };
        if self.crew.learn(member, counted, shortage) {
            return self.go_on_without(context, worker, reason);
        }
        let why = format!(
            "workers ran out of memory {SHORTAGES_MAX} times with no step between{}. The last one \
             says: {reason}",
            self.crew.shortages()
        );
        self.fail(context, why);
    }

    /// Drops a worker that sends heartbeats and does not get on: it holds all others up.
    pub(super) fn drop_stalled(&mut self, context: &mut EventContext) {
        self.drop_silent_flusher(context);
        let Some(active) = self.planning.active() else {
            return;
        };
        let workers = active.workers();
        let limit = self.step_micros(active).saturating_mul(STALL_STEPS);
        let limit = limit.max(context.config.stall_us);
        let (since, silent, may_wait_for_all) = match &self.attempt {
            None if active.all_ready() => return,
            None => (active.since(), active.unready().next(), false),
            Some(attempt) => {
                let silent = attempt.silent(&workers);
                let may_wait_for_all = attempt.is_first_phase() && !attempt.is_disputed();
                (attempt.since(), silent, may_wait_for_all)
            }
        };
        if context.now.since(since) <= limit {
            return;
        }
        match silent {
            Some(worker) => {
                context.members.pause(context.now, &worker, limit);
                self.lose(context, worker, "it does not answer");
            }
            None if may_wait_for_all => self.find_silent(context, &workers, limit),
            None => {}
        }
    }

    /// Drops a worker that sends heartbeats and does not store its part of a state: the job may
    /// wait for that and for nothing else. Others that hold the part store it; if there are none,
    /// the job goes back.
    fn drop_silent_flusher(&mut self, context: &mut EventContext) {
        let (now, patience) = (context.now, context.config.stall_us);
        let flush = self.flush.as_ref();
        let silent = flush.and_then(|flush| flush.silent(now, self.order.spec(), patience));
        if let Some(worker) = silent {
            context.members.pause(now, &worker, patience);
            self.lose(context, worker, "it does not store its state");
        }
    }

    /// The predicted time of the step being done; an evaluation is taken for an update of as many
    /// microbatches.
    pub(super) fn step_micros(&self, active: &ActivePlan) -> u64 {
        let spec = self.spec();
        let count = spec.microbatches_of(self.committed.steps());
        let updates = count.div_ceil(spec.microbatches.max(1)).max(1);
        active.step_micros().saturating_mul(updates.into())
    }

    /// While gradients are computed, any worker may wait for any other, so it does not show who is
    /// at fault. The first time, the step is tried again with all of them. After that, a worker
    /// with the most stalls is left alone for a while.
    fn find_silent(&mut self, context: &mut EventContext, workers: &[WorkerId], limit: u64) {
        let (suspects, stalls) = self.crew.note_stall(workers);
        if stalls == 1 || suspects.is_empty() {
            let why = "the step came to a stop".to_string();
            self.planning.set_reason(why);
            return self.retire(context);
        }
        let worker = suspects[self.planning.epoch() as usize % suspects.len()];
        let pause = limit.saturating_mul(1 << stalls.min(16));
        context.members.pause(context.now, &worker, pause);
        self.lose(
            context,
            worker,
            "the step comes to a stop; tried without it",
        );
    }
}
