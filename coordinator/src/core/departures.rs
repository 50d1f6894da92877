//! What happens when a worker, a plan or a job comes to its end.

use concord_proto::WorkerId;
use concord_proto::client::{JobEvent, JobState};
use concord_proto::session::{Role, ToWorker};

use super::desk::Desk;
use super::job::Job;
use super::pool::Member;
use super::reported::reported;

/// So often may a worker fail in a row before its state is given up: the store may have been full.
const FAILURES_MAX: u32 = 6;

/// A step may take so many times as long as predicted.
const STALL_STEPS: u64 = 20;

impl Job {
    /// Ends the plan in effect and the step being done. Its workers keep the committed state.
    pub(super) fn retire(&mut self, desk: &mut Desk) {
        self.drop_contest(desk);
        self.attempt = None;
        self.considered = None;
        self.handover = None;
        let Some(active) = self.active.take() else {
            return;
        };
        let (job, epoch) = (self.id, active.plan.epoch);
        for worker in active.workers() {
            desk.send(&worker, ToWorker::Abort { job, epoch });
        }
    }

    /// A worker is gone with what it held, or what it holds is not trusted.
    pub(super) fn lose(&mut self, desk: &mut Desk, worker: WorkerId, reason: &str) {
        self.holding.remove(&worker);
        self.go_on_without(desk, worker, reason);
    }

    /// Ends the plan and the flush that a worker has a part in.
    pub(super) fn go_on_without(&mut self, desk: &mut Desk, worker: WorkerId, reason: &str) {
        if let Some(member) = desk.pool.get_mut(&worker) {
            member.trouble = reason.to_string();
        }
        if self
            .flush
            .as_ref()
            .is_some_and(|flush| flush.needs(&worker))
        {
            self.flush = None;
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.has(&worker))
        {
            let reason = reason.to_string();
            self.reason = format!("worker {}: {reason}", worker.short());
            self.publish(desk, JobEvent::Lost { worker, reason });
            self.retire(desk);
        }
    }

    /// A worker says that it cannot load its stage, do its part of the step or store its state. It
    /// still holds the committed state, unless it fails again and again.
    pub(super) fn on_failed(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        epoch: u32,
        (reason, permanent): (String, bool),
    ) {
        if epoch != self.epoch || self.is_over() {
            return;
        }
        let reason = reported(reason);
        if permanent {
            return self.on_hopeless(desk, worker, reason);
        }
        if desk.pool.failed(desk.now, &worker) > FAILURES_MAX {
            self.holding.remove(&worker);
        }
        self.go_on_without(desk, worker, &reason);
    }

    /// A worker says that the job itself cannot be done: no worker is lost. One word is not enough
    /// to end a job that others may do: they try without it, and if it fails with them, too, it has
    /// failed.
    fn on_hopeless(&mut self, desk: &mut Desk, worker: WorkerId, reason: String) {
        // Only who works for the job can know.
        if !self
            .active
            .as_ref()
            .is_some_and(|active| active.has(&worker))
        {
            return;
        }
        self.set_aside.insert(worker);
        self.gave_up.insert(worker, reason.clone());
        let may_help = |member: &Member| {
            let is_worker = member.role == Role::Worker && !member.draining;
            is_worker && !self.set_aside.contains(&member.id)
        };
        if self.gave_up.len() > 1 || !desk.pool.connected().any(may_help) {
            return self.fail(desk, reason);
        }
        if self
            .flush
            .as_ref()
            .is_some_and(|flush| flush.needs(&worker))
        {
            self.flush = None;
        }
        let who = worker.short();
        self.reason = format!("worker {who} says: {reason}; the others try without it");
        self.retire(desk);
    }

    /// A worker that says nothing but that it is alive holds all others up.
    pub(super) fn drop_stalled(&mut self, desk: &mut Desk) {
        let Some(active) = &self.active else {
            return;
        };
        let workers = active.workers();
        let limit = active.step_micros.saturating_mul(STALL_STEPS);
        let limit = limit.max(desk.config.stall_us);
        let (since, silent) = match &self.attempt {
            None if active.all_ready() => return,
            None => {
                let silent = workers.iter().find(|id| !active.ready.contains(id));
                (active.since, silent)
            }
            Some(attempt) => (attempt.since, attempt.silent(&workers)),
        };
        if desk.now.since(since) <= limit {
            return;
        }
        let first_phase = self.attempt.as_ref().is_some_and(|a| a.scalars.is_none());
        match silent {
            Some(worker) => {
                let worker = *worker;
                desk.pool.pause(desk.now, &worker, limit);
                self.lose(desk, worker, "it does not answer");
            }
            None if first_phase => self.find_silent(desk, &workers, limit),
            None => {}
        }
    }

    /// While gradients are computed everybody may wait for anybody. Whoever was there most often
    /// when a step came to a stop is left alone for a while; where that singles nobody out, the
    /// step is first tried again with all.
    fn find_silent(&mut self, desk: &mut Desk, workers: &[WorkerId], limit: u64) {
        for worker in workers {
            *self.stalls.entry(*worker).or_default() += 1;
        }
        let stalls = |id: &WorkerId| self.stalls.get(id).copied().unwrap_or(0);
        let most = workers.iter().map(stalls).max().unwrap_or(0);
        let suspects: Vec<WorkerId> = workers
            .iter()
            .copied()
            .filter(|id| stalls(id) == most)
            .collect();
        if most == 1 || suspects.is_empty() {
            self.reason = "the step came to a stop".to_string();
            return self.retire(desk);
        }
        let worker = suspects[self.epoch as usize % suspects.len()];
        let pause = limit.saturating_mul(1 << most.min(16));
        desk.pool.pause(desk.now, &worker, pause);
        self.lose(desk, worker, "the step comes to a stop; tried without it");
    }

    /// The job cannot be done.
    pub(super) fn fail(&mut self, desk: &mut Desk, why: String) {
        self.end(desk, JobState::Failed(why.clone()));
        self.publish(desk, JobEvent::Failed(why));
    }

    /// Lets go of everything that works for the job.
    pub(super) fn end(&mut self, desk: &mut Desk, state: JobState) {
        self.retire(desk);
        self.flush = None;
        match &state {
            JobState::Completed { .. } => self.void_audits(desk, 0),
            _ => self.void_unjudged(desk),
        }
        self.state = state;
        let job = self.id;
        let members: Vec<WorkerId> = desk.pool.connected().map(|member| member.id).collect();
        for member in members {
            desk.send(&member, ToWorker::Forget { job });
        }
    }

    /// Gives up steps of which a drawn leaf is not judged: nobody re-runs it any more, and a proof
    /// needs all of them. Submitted again, the job does these steps anew.
    fn void_unjudged(&mut self, desk: &mut Desk) {
        let oldest = self.audits.oldest_step();
        if let Some(oldest) = oldest.filter(|&step| step < self.committed) {
            self.void_from(desk, oldest);
        }
        // Those of the step in progress.
        self.void_audits(desk, self.committed);
    }
}
