//! Who works for a job, and what is known of them: the job's side of the pool's members.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::session::Role;
use concord_proto::{JobSpec, Layers, Plan, WorkerId};
use concord_verify::training::held_tensors;

use super::learned_memory::{LearnedMemory, Shortage};
use super::{EventContext, PoolMember, Time};
use crate::planner::PlannerDevice;

/// The most workers without a part that a status text names.
const NAMED_MAX: usize = 4;

/// A state that a worker has in memory.
#[derive(Clone, Copy, Debug)]
struct HeldState {
    /// Steps done.
    steps: u32,
    layers: Layers,
}

/// A worker has said that nobody can do the job.
pub(super) struct GaveUp {
    /// The step that it could not do.
    pub(super) step: u32,
    pub(super) why: String,
    /// The others of its plan: what they send may be what cannot be computed on.
    pub(super) beside: BTreeSet<WorkerId>,
}

pub(super) struct Crew {
    /// Workers that this job does without, because a dispute about them could not be decided.
    set_aside: BTreeSet<WorkerId>,
    /// Workers of which a leaf was called wrong, which a re-run has yet to decide about.
    accused: BTreeSet<WorkerId>,
    /// Workers that said that the job itself cannot be done.
    gave_up: BTreeMap<WorkerId, GaveUp>,
    /// What such workers said, where others are suspected of having made it so.
    doubted: Option<String>,
    held: BTreeMap<WorkerId, HeldState>,
    /// Workers that are waited for after a restart, and until when.
    expected: BTreeSet<WorkerId>,
    back_by: Time,
    /// What workers that ran out of memory can hold, as far as this job has learned it.
    learned: LearnedMemory,
    /// How often a step has stalled with each worker since it last finished one.
    stalls: BTreeMap<WorkerId, u32>,
}

impl Crew {
    pub(super) fn new(
        set_aside: impl Iterator<Item = WorkerId>,
        expected: impl Iterator<Item = WorkerId>,
        back_by: Time,
    ) -> Self {
        Self {
            set_aside: set_aside.collect(),
            accused: BTreeSet::new(),
            gave_up: BTreeMap::new(),
            doubted: None,
            held: BTreeMap::new(),
            expected: expected.collect(),
            back_by,
            learned: LearnedMemory::default(),
            stalls: BTreeMap::new(),
        }
    }

    /// Everybody may try again.
    pub(super) fn forgive(&mut self) {
        self.set_aside.clear();
        self.gave_up.clear();
        self.doubted = None;
        self.held.clear();
        self.learned.held();
    }

    pub(super) fn set_aside(&self) -> impl Iterator<Item = WorkerId> {
        self.set_aside.iter().copied()
    }

    /// Notes of which workers a leaf was called wrong: until it is decided about, they take no new
    /// seat.
    pub(super) fn set_accused(&mut self, accused: impl Iterator<Item = WorkerId>) {
        self.accused = accused.collect();
    }

    pub(super) fn is_set_aside(&self, worker: &WorkerId) -> bool {
        self.set_aside.contains(worker)
    }

    /// Goes on without a worker. Says whether another one is there.
    pub(super) fn put_aside(&mut self, context: &EventContext, worker: WorkerId) -> bool {
        self.set_aside.insert(worker);
        let mut members = context.members.connected();
        members.any(|m| m.role == Role::Worker && !self.set_aside.contains(&m.id))
    }

    /// A worker says that nobody can do the job. Says whether others may still do it: one worker's
    /// word is not enough to end a job, nor are the words of several about different steps, or of
    /// several beside each of whom one and the same other worker had a part. Then those go on
    /// without it: it may have sent numbers that nobody can compute on, which no claim is about.
    pub(super) fn give_up(
        &mut self,
        context: &EventContext,
        worker: WorkerId,
        gave_up: GaveUp,
    ) -> bool {
        self.set_aside.insert(worker);
        let (step, why) = (gave_up.step, gave_up.why.clone());
        self.gave_up.insert(worker, gave_up);
        let at_step = self.gave_up.iter().filter(|(_, one)| one.step == step);
        let unlucky: Vec<WorkerId> = at_step.map(|(id, _)| *id).collect();
        if unlucky.len() > 1 {
            let suspects = self.suspects(step);
            if suspects.is_empty() {
                return false;
            }
            for id in unlucky {
                self.gave_up.remove(&id);
                self.set_aside.remove(&id);
            }
            self.set_aside.extend(suspects);
            self.doubted = Some(why);
        }
        let may_help = |member: &PoolMember| {
            let is_worker = member.role == Role::Worker && !member.draining;
            is_worker && !self.set_aside.contains(&member.id)
        };
        context.members.connected().any(may_help)
    }

    /// Workers beside which all have given up that have at this step.
    fn suspects(&self, step: u32) -> BTreeSet<WorkerId> {
        let at_step = self.gave_up.values().filter(|one| one.step == step);
        let mut all = at_step.map(|one| one.beside.clone());
        let common = all.next().unwrap_or_default();
        let common = all.fold(common, |common, beside| &common & &beside);
        let is_other = |id: &WorkerId| !self.gave_up.contains_key(id);
        common.into_iter().filter(is_other).collect()
    }

    /// Why somebody says that nobody can do the job.
    pub(super) fn given_up(&self) -> Option<&String> {
        let first = self.gave_up.values().next();
        first.map(|one| &one.why).or(self.doubted.as_ref())
    }

    pub(super) fn note_held(&mut self, worker: WorkerId, steps: u32, layers: Layers) {
        self.held.insert(worker, HeldState { steps, layers });
    }

    pub(super) fn forget_held(&mut self, worker: &WorkerId) {
        self.held.remove(worker);
    }

    /// Whether a worker holds the state after `steps` steps.
    pub(super) fn holds(&self, worker: &WorkerId, steps: u32) -> bool {
        self.held
            .get(worker)
            .is_some_and(|held| held.steps == steps)
    }

    /// A step is final: everybody in the plan holds the state after it.
    pub(super) fn note_committed(&mut self, context: &mut EventContext, plan: &Plan, steps: u32) {
        self.learned.held();
        for (slot, worker) in plan.workers() {
            self.note_held(worker, steps, plan.stages[slot.stage]);
            self.stalls.remove(&worker);
            if let Some(member) = context.members.get_mut(&worker) {
                (member.failures, member.garbled) = (0, 0);
            }
        }
    }

    /// Connected workers that together hold the state after `steps` steps, each with all tensors
    /// that it holds. A worker that adds none is left out.
    pub(super) fn covering(
        &self,
        context: &EventContext,
        spec: &JobSpec,
        steps: u32,
    ) -> Option<BTreeMap<WorkerId, Vec<u32>>> {
        let mut missing: BTreeSet<u32> = (0..spec.trainable.len() as u32).collect();
        let mut wanted = BTreeMap::new();
        for (worker, held) in &self.held {
            if held.steps != steps || context.members.session(worker).is_none() {
                continue;
            }
            let tensors = held_tensors(spec, held.layers);
            let before = missing.len();
            tensors.iter().for_each(|tensor| {
                missing.remove(tensor);
            });
            if missing.len() < before {
                wanted.insert(*worker, tensors);
            }
        }
        missing.is_empty().then_some(wanted)
    }

    /// After a restart the workers of the last plan get a while to come back: what they hold saves
    /// the steps since the last checkpoint.
    pub(super) fn are_back(&self, context: &EventContext) -> bool {
        // The address of a worker that has just come is still being tried.
        let is_here = |member: &PoolMember| {
            let is_known = member.unreached.is_some() || member.is_reached(context.now);
            member.session.is_some() && is_known
        };
        let is_back = |id: &WorkerId| {
            context.members.get(id).is_some_and(is_here)
                || context.members.is_convicted(id).is_some()
        };
        context.now >= self.back_by || self.expected.iter().all(is_back)
    }

    /// The workers that a plan may be made of.
    pub(super) fn devices(&self, context: &EventContext) -> Vec<PlannerDevice> {
        let left_out = self.left_out(context);
        self.fit(context)
            .filter(|member| member.is_reached(context.now) && !left_out.contains(&member.id))
            // Of two workers at one address, only one can be connected to.
            .filter(|member| !context.members.is_outdone(member))
            .map(|member| PlannerDevice {
                id: member.id,
                name: member.device.name.clone(),
                macs_per_second: member.device.macs_per_second,
                memory_bytes: self.learned.usable(&member.id, member.device.memory_bytes),
            })
            .collect()
    }

    fn fit<'a>(&'a self, context: &'a EventContext) -> impl Iterator<Item = &'a PoolMember> {
        context
            .members
            .connected()
            .filter(|member| member.role == Role::Worker && !member.draining)
            .filter(|member| member.unfit_until <= context.now)
            .filter(|member| !self.set_aside.contains(&member.id))
            .filter(|member| !self.accused.contains(&member.id))
    }

    /// Workers that are fit, but do not reach others that are, or are not reached by them.
    pub(super) fn left_out(&self, context: &EventContext) -> BTreeSet<WorkerId> {
        let fit = self.fit(context).map(|member| member.id).collect();
        context.members.left_out(context.now, &fit)
    }

    /// Why workers that are connected have no part in the next plan, for people.
    pub(super) fn absent(&self, context: &EventContext) -> String {
        let workers = context.members.connected();
        let workers = workers.filter(|member| member.role == Role::Worker);
        let left_out = self.left_out(context);
        let one = |member: &PoolMember| {
            let id = &member.id;
            let why = if member.draining {
                "leaves".to_string()
            } else if let Some(GaveUp { why, .. }) = self.gave_up.get(id) {
                format!("says: {why}")
            } else if self.set_aside.contains(id) {
                "is set aside after a dispute".to_string()
            } else if self.accused.contains(id) {
                "is accused of a wrong result, which is being re-run".to_string()
            } else if let Some(words) = member.out_of_reach() {
                words
            } else if let Some(words) = context.members.clash(member) {
                words
            } else if member.unfit_until > context.now {
                format!("is tried again after a pause: {}", member.trouble)
            } else if left_out.contains(id) {
                format!("is not reached by others at {}", member.endpoint)
            } else {
                return None;
            };
            Some(format!("; worker {} {why}", id.short()))
        };
        workers.filter_map(one).take(NAMED_MAX).collect()
    }

    /// A stage of `counted` bytes was too much for a worker. Says whether the job may go on after
    /// so many shortages.
    pub(super) fn learn(&mut self, member: &PoolMember, counted: u64, shortage: Shortage) -> bool {
        let announced = member.device.memory_bytes;
        self.learned.learn(member.id, announced, counted, shortage)
    }

    /// Who ran out of memory, for people.
    pub(super) fn shortages(&self) -> String {
        self.learned.as_text()
    }

    /// A step has stalled with these workers. Gives those with the most stalls, and how many these
    /// are.
    pub(super) fn note_stall(&mut self, workers: &[WorkerId]) -> (Vec<WorkerId>, u32) {
        for worker in workers {
            *self.stalls.entry(*worker).or_default() += 1;
        }
        let stalls = |id: &WorkerId| self.stalls.get(id).copied().unwrap_or(0);
        let most = workers.iter().map(stalls).max().unwrap_or(0);
        let suspects = workers.iter().copied().filter(|id| stalls(id) == most);
        (suspects.collect(), most)
    }
}
