//! From waiting to a plan in effect, and from one plan to the next.

use std::collections::BTreeSet;

use concord_proto::client::{JobEvent, JobState, PlanChoice};
use concord_proto::ledger::LedgerEvent;
use concord_proto::session::{Assignment, Role, ToWorker};
use concord_proto::{Digest, Domain, Plan, WorkerId};

use super::desk::Desk;
use super::event::Time;
use super::job::Job;
use super::kept::Change;
use super::pool::Member;
use crate::planner::{self, Device, PlanError, Planned, Request};

/// A new plan must be predicted to take at most 100 / 120 of the present one's time.
const WORTHWHILE: (u64, u64) = (120, 100);

/// A plan in effect.
pub(super) struct Active {
    pub(super) plan: Plan,
    pub(super) digest: Digest,
    pub(super) since: Time,
    /// Who has its stage loaded.
    pub(super) ready: BTreeSet<WorkerId>,
    pub(super) step_micros: u64,
    /// Bytes that each stage is counted to take.
    pub(super) stage_bytes: Vec<u64>,
    /// Whether it is what the user chose, or what could be had.
    as_chosen: bool,
}

impl Active {
    pub(super) fn has(&self, worker: &WorkerId) -> bool {
        self.plan.slot(worker).is_some()
    }

    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.plan.workers().map(|(_, id)| id).collect()
    }

    pub(super) fn all_ready(&self) -> bool {
        self.plan.workers().all(|(_, id)| self.ready.contains(&id))
    }
}

impl Job {
    /// Does whatever can be done now. Called after every event.
    pub(super) fn advance(&mut self, desk: &mut Desk) {
        if self.is_over() {
            return;
        }
        self.get_on(desk);
        if !self.is_over() {
            self.tell_waiting(desk);
        }
    }

    fn get_on(&mut self, desk: &mut Desk) {
        self.run_audits(desk);
        self.drop_stalled(desk);
        let stored = self.checkpoints.contains_key(&self.committed);
        if self.is_over() {
            return;
        }
        if self.all_committed() && stored {
            self.finish(desk);
            return;
        }
        let between_steps = self.attempt.is_none();
        if between_steps && self.active.as_ref().is_some_and(Active::all_ready) {
            self.boundary(desk);
        }
        if self.active.is_none() {
            self.recover(desk);
        }
    }

    /// Between two steps: leave, plan anew, hold back, or go on.
    fn boundary(&mut self, desk: &mut Desk) {
        if self.handover.is_none() && !self.all_committed() {
            self.handover = self.wants_new_plan(desk);
        }
        if self.handover.is_some() || self.all_committed() {
            let stored = self.checkpoints.contains_key(&self.committed);
            if stored || !self.flush_committed(desk) {
                self.reason = self.handover.take().unwrap_or_default();
                self.retire(desk);
            }
            return;
        }
        let window = desk.config.audit_window;
        let oldest = self.audits.oldest_step();
        if oldest.is_some_and(|oldest| self.committed >= oldest.saturating_add(window)) {
            return;
        }
        self.start_step(desk);
    }

    /// Without a plan: see to it that the committed state is in the store, then plan.
    fn recover(&mut self, desk: &mut Desk) {
        if self.flush.is_some() || !self.expected_are_back(desk) {
            return;
        }
        let stored = self.checkpoints.contains_key(&self.committed);
        if !stored && self.flush_committed(desk) {
            return;
        }
        let devices = self.devices(desk);
        if self.considered.as_ref() == Some(&devices) {
            return;
        }
        if let Some(what) = self.lacks(desk, &devices) {
            self.wait_for(desk, what);
            return;
        }
        let planned = self.plan_for(&devices);
        self.considered = Some(devices);
        match planned {
            Ok((planned, as_chosen)) => {
                if !stored {
                    self.fall_back(desk);
                }
                self.install(desk, planned, as_chosen);
            }
            Err(error) if is_hopeless(&error) => self.fail(desk, error.to_string()),
            Err(error) => {
                // Whoever could do without the others says that nobody can.
                if let Some(reason) = self.gave_up.values().next() {
                    return self.fail(desk, reason.clone());
                }
                let (learned, absent) = (self.learned.as_text(), self.absent(desk));
                self.wait_for(desk, format!("{error}{learned}{absent}"));
            }
        }
    }

    /// After a restart the workers of the last plan get a while to come back: what they hold saves
    /// the steps since the last checkpoint.
    fn expected_are_back(&mut self, desk: &mut Desk) -> bool {
        let (expected, until) = &self.expected;
        // Of whoever has just come its address is still being tried.
        let is_here = |member: &Member| {
            let is_known = member.unreached.is_some() || member.is_reached(desk.now);
            member.session.is_some() && is_known
        };
        let is_back = |id: &WorkerId| {
            desk.pool.get(id).is_some_and(is_here) || desk.pool.is_convicted(id).is_some()
        };
        if desk.now >= *until || expected.iter().all(is_back) {
            return true;
        }
        self.wait_for(desk, "its workers to come back".to_string());
        false
    }

    /// The workers that a plan may be made of.
    pub(super) fn devices(&self, desk: &Desk) -> Vec<Device> {
        let left_out = self.left_out(desk);
        self.fit(desk)
            .filter(|member| member.is_reached(desk.now) && !left_out.contains(&member.id))
            .map(|member| Device {
                id: member.id,
                name: member.device.name.clone(),
                macs_per_second: member.device.macs_per_second,
                memory_bytes: self.learned.usable(&member.id, member.device.memory_bytes),
            })
            .collect()
    }

    fn fit<'a>(&'a self, desk: &'a Desk) -> impl Iterator<Item = &'a Member> {
        desk.pool
            .connected()
            .filter(|member| member.role == Role::Worker && !member.draining)
            .filter(|member| member.unfit_until <= desk.now)
            .filter(|member| !self.set_aside.contains(&member.id))
    }

    /// Workers that are fit, but do not reach others that are, or are not reached by them.
    pub(super) fn left_out(&self, desk: &Desk) -> BTreeSet<WorkerId> {
        let fit = self.fit(desk).map(|member| member.id).collect();
        desk.pool.left_out(desk.now, &fit)
    }

    /// What is missing before a plan is worth making.
    fn lacks(&self, desk: &Desk, devices: &[Device]) -> Option<String> {
        let options = &self.submission.options;
        let workers = devices.len() as u64;
        if self.epoch > 0 {
            let what = |absent: String| match absent.as_str() {
                "" => "a worker, and none is left: start `concord worker`".to_string(),
                absent => format!("a worker that can take part{absent}"),
            };
            return (workers == 0).then(|| what(self.absent(desk)));
        }
        let seats = match &options.plan {
            PlanChoice::Auto => 1,
            PlanChoice::Fixed {
                stages, replicas, ..
            } => u64::from(*stages) * u64::from(*replicas),
        };
        let needed = seats.max(u64::from(options.min_workers));
        if workers < needed {
            let absent = self.absent(desk);
            return Some(format!("workers: {workers} of {needed} are here{absent}"));
        }
        let (checkers, needed) = (desk.pool.checkers().count(), options.min_checkers);
        let missing = (checkers as u64) < u64::from(needed);
        missing.then(|| format!("checkers: {checkers} of {needed} are here"))
    }

    /// Plans as the user chose; where workers have gone since the start, as well as can be.
    fn plan_for(&self, devices: &[Device]) -> Result<(Planned, bool), PlanError> {
        let options = &self.submission.options;
        let request = |choice| Request {
            job: self.id,
            epoch: self.epoch + 1,
            layers: self.spec().layers,
            microbatches: self.spec().microbatches,
            profile: &self.submission.profile,
            choice,
            devices,
        };
        match planner::plan(&request(&options.plan)) {
            Ok(planned) => Ok((planned, true)),
            Err(error) if self.epoch == 0 || is_hopeless(&error) => Err(error),
            Err(_) => planner::plan(&request(&PlanChoice::Auto)).map(|planned| (planned, false)),
        }
    }

    /// Why the plan in effect should go, if it should.
    fn wants_new_plan(&mut self, desk: &Desk) -> Option<String> {
        let active = self.active.as_ref()?;
        let drains = |id: &WorkerId| desk.pool.get(id).is_some_and(|member| member.draining);
        if let Some(worker) = active.workers().iter().find(|id| drains(id)) {
            return Some(format!("worker {} leaves", worker.short()));
        }
        // It was planned before its address could be tried.
        let words = |id: &WorkerId| desk.pool.get(id).and_then(Member::out_of_reach);
        let unreached = active.workers().into_iter();
        if let Some((worker, words)) = unreached.filter_map(|id| Some((id, words(&id)?))).next() {
            return Some(format!("worker {} {words}", worker.short()));
        }
        let devices = self.devices(desk);
        if self.considered.as_ref() == Some(&devices) {
            return None;
        }
        let planned = self.plan_for(&devices);
        self.considered = Some(devices);
        let (planned, as_chosen) = planned.ok()?;
        let faster = planned.step_micros.saturating_mul(WORTHWHILE.0)
            <= active.step_micros.saturating_mul(WORTHWHILE.1);
        let newly_as_chosen = as_chosen && !active.as_chosen;
        let better = newly_as_chosen || (faster && as_chosen == active.as_chosen);
        better.then(|| "other workers make it faster".to_string())
    }

    fn install(&mut self, desk: &mut Desk, planned: Planned, as_chosen: bool) {
        let spec = self.spec();
        if let Err(why) = planned.plan.validate(spec.layers, spec.microbatches) {
            self.fail(
                desk,
                format!("the planner gave a plan that cannot be: {why}"),
            );
            return;
        }
        let workers: Vec<WorkerId> = planned.plan.workers().map(|(_, id)| id).collect();
        let plan = planned.plan;
        self.epoch = plan.epoch;
        workers.iter().for_each(|id| self.enrol(desk, id, false));
        desk.out.keep(Change::Plan { plan: plan.clone() });
        let (step, entry) = (self.committed, plan.clone());
        self.write(desk, LedgerEvent::Planned { plan: entry, step });
        self.state = JobState::Running;
        let reason = std::mem::take(&mut self.reason);
        let device = |id: &WorkerId| {
            let member = desk.pool.get(id);
            member.map_or(String::new(), |member| member.device.name.clone())
        };
        let planned_event = JobEvent::Planned {
            plan: plan.clone(),
            devices: workers.iter().map(device).collect(),
            predicted_step_us: planned.step_micros,
            step: self.committed,
            reason,
        };
        self.publish(desk, planned_event);
        self.assign(desk, &plan, planned.depth);
        self.active = Some(Active {
            digest: plan.digest(),
            plan,
            since: desk.now,
            ready: BTreeSet::new(),
            step_micros: planned.step_micros,
            stage_bytes: planned.stage_bytes,
            as_chosen,
        });
    }

    fn assign(&mut self, desk: &mut Desk, plan: &Plan, depth: u32) {
        let endpoint = |id: &WorkerId| {
            let member = desk.pool.get(id);
            member.map_or(String::new(), |member| member.endpoint.clone())
        };
        let workers: Vec<WorkerId> = plan.workers().map(|(_, id)| id).collect();
        let assignment = Assignment {
            plan: plan.clone(),
            spec: self.spec_blob,
            state: Digest::of_value(Domain::Blob, &self.checkpoints[&self.committed]),
            endpoints: workers.iter().map(endpoint).collect(),
            recompute: self.submission.options.recompute,
            depth,
        };
        for worker in &workers {
            // What it held before, it now replaces.
            self.holding.remove(worker);
            desk.send(worker, ToWorker::Assign(Box::new(assignment.clone())));
        }
    }

    /// A worker has its stage loaded.
    pub(super) fn on_ready(&mut self, worker: WorkerId, epoch: u32) {
        let Some(active) = self.active.as_mut().filter(|a| a.plan.epoch == epoch) else {
            return;
        };
        if let Some(seat) = active.plan.slot(&worker) {
            active.ready.insert(worker);
            let layers = active.plan.stages[seat.stage];
            self.holding.insert(worker, (self.committed, layers));
        }
    }
}

/// Whether no pool whatever could do it.
fn is_hopeless(error: &PlanError) -> bool {
    matches!(
        error,
        PlanError::EmptyJob { .. }
            | PlanError::EmptyPlan { .. }
            | PlanError::TooManyStages { .. }
            | PlanError::TooManyReplicas { .. }
            | PlanError::Shares { .. }
    )
}
