//! The plan in effect, and why there is to be another one.

use std::collections::BTreeSet;

use concord_proto::{Digest, Layers, Plan, WorkerId};

use super::Time;
use crate::planner::{PlannerDevice, TrainingPlan};

/// A new plan must be predicted to take at most 100 / 120 of the present one's time.
const WORTHWHILE: (u64, u64) = (120, 100);

/// A plan in effect.
pub(super) struct ActivePlan {
    plan: Plan,
    digest: Digest,
    since: Time,
    /// Who has its stage loaded.
    ready: BTreeSet<WorkerId>,
    step_micros: u64,
    /// Bytes that each stage is counted to take.
    stage_bytes: Vec<u64>,
    /// Steps whose inputs its workers have memory to hold for checkers.
    open_steps: u32,
    /// Whether it is what the user chose, or what the pool has room for.
    as_chosen: bool,
}

impl ActivePlan {
    pub(super) fn new(now: Time, planned: TrainingPlan, as_chosen: bool) -> Self {
        Self {
            digest: planned.plan.digest(),
            plan: planned.plan,
            since: now,
            ready: BTreeSet::new(),
            step_micros: planned.step_micros,
            stage_bytes: planned.stage_bytes,
            open_steps: planned.open_steps,
            as_chosen,
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn step_micros(&self) -> u64 {
        self.step_micros
    }

    pub(super) fn open_steps(&self) -> u32 {
        self.open_steps
    }

    pub(super) fn has(&self, worker: &WorkerId) -> bool {
        self.plan.slot(worker).is_some()
    }

    pub(super) fn workers(&self) -> Vec<WorkerId> {
        self.plan.workers().map(|(_, id)| id).collect()
    }

    pub(super) fn all_ready(&self) -> bool {
        self.plan.workers().all(|(_, id)| self.ready.contains(&id))
    }

    /// Workers that have not loaded their stage, in the order of the plan.
    pub(super) fn unready(&self) -> impl Iterator<Item = WorkerId> {
        let workers = self.plan.workers().map(|(_, id)| id);
        workers.filter(move |id| !self.ready.contains(id))
    }

    /// Bytes that the stage of a worker is counted to take.
    pub(super) fn counted_bytes(&self, worker: &WorkerId) -> Option<u64> {
        let slot = self.plan.slot(worker)?;
        self.stage_bytes.get(slot.stage).copied()
    }

    /// Why another plan is so much better than this one that a change pays, if it is.
    pub(super) fn worse_because(
        &self,
        planned: &TrainingPlan,
        as_chosen: bool,
    ) -> Option<&'static str> {
        let faster = planned.step_micros.saturating_mul(WORTHWHILE.0)
            <= self.step_micros.saturating_mul(WORTHWHILE.1);
        match (as_chosen, self.as_chosen) {
            (true, false) => Some("it can be the plan that was asked for"),
            (false, true) => None,
            _ => faster.then_some("other workers make it faster"),
        }
    }
}

/// The plans of a job, one after another.
pub(super) struct Planning {
    /// Of the last plan.
    epoch: u32,
    active: Option<ActivePlan>,
    /// The workers that the last plan was made from.
    considered: Option<Vec<PlannerDevice>>,
    /// Why the plan in effect is to go at the next boundary.
    handover: Option<String>,
    /// Why the next plan is made.
    reason: String,
}

impl Planning {
    pub(super) fn new(epoch: u32, reason: String) -> Self {
        Self {
            epoch,
            active: None,
            considered: None,
            handover: None,
            reason,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn active(&self) -> Option<&ActivePlan> {
        self.active.as_ref()
    }

    /// The plan in effect, where it is of this epoch.
    pub(super) fn active_at(&self, epoch: u32) -> Option<&ActivePlan> {
        self.active.as_ref().filter(|a| a.plan.epoch == epoch)
    }

    /// A worker has its stage of the plan of `epoch` loaded. Gives its layers, if it has one.
    pub(super) fn note_ready(&mut self, worker: WorkerId, epoch: u32) -> Option<Layers> {
        let active = self.active.as_mut().filter(|a| a.plan.epoch == epoch)?;
        let slot = active.plan.slot(&worker)?;
        active.ready.insert(worker);
        Some(active.plan.stages[slot.stage])
    }

    /// Says why the next plan is made.
    pub(super) fn set_reason(&mut self, reason: String) {
        self.reason = reason;
    }

    /// Notes the workers that a plan is made from.
    pub(super) fn consider(&mut self, devices: Vec<PlannerDevice>) {
        self.considered = Some(devices);
    }

    /// Whether the last plan was made from the same workers.
    pub(super) fn has_considered(&self, devices: &[PlannerDevice]) -> bool {
        self.considered.as_deref() == Some(devices)
    }

    /// Another plan was asked for: it is made as soon as the workers at hand can do it.
    pub(super) fn choose_anew(&mut self) {
        self.considered = None;
        if let Some(active) = &mut self.active {
            active.as_chosen = false;
        }
    }

    /// Notes why the plan in effect is to go at the next boundary, if it is.
    pub(super) fn set_handover(&mut self, why: Option<String>) {
        self.handover = why;
    }

    pub(super) fn is_handed_over(&self) -> bool {
        self.handover.is_some()
    }

    /// The next plan is made for the reason for which this one was to go.
    pub(super) fn hand_over(&mut self) {
        self.reason = self.handover.take().unwrap_or_default();
    }

    /// Puts a plan into effect. Gives the reason for which it was made.
    pub(super) fn install(&mut self, active: ActivePlan) -> String {
        self.epoch = active.plan.epoch;
        self.active = Some(active);
        std::mem::take(&mut self.reason)
    }

    /// Ends the plan in effect: the next one is made from the workers that are there then.
    pub(super) fn retire(&mut self) -> Option<ActivePlan> {
        self.considered = None;
        self.handover = None;
        self.active.take()
    }
}
