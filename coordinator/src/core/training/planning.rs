//! From the workers at hand to a plan in effect.

use concord_proto::client::{JobEvent, JobState, PlanChoice};
use concord_proto::ledger::LedgerEvent;
use concord_proto::session::{Assignment, ToWorker};
use concord_proto::{Digest, Domain, JobSpec, Plan, WorkerId};

use super::active_plan::ActivePlan;
use super::{Change, EventContext, TrainingJob};
use crate::planner::{self, PlanError, PlanRequest, PlannerDevice, TrainingPlan};

/// A plan that could be made.
struct Proposal {
    planned: TrainingPlan,
    /// Whether it is what the user chose, or what the pool has room for.
    as_chosen: bool,
}

impl TrainingJob {
    /// Makes a plan of the workers that are there, unless the same ones were tried before.
    /// `is_stored`: the present state is in the store, for the plan to start from.
    pub(super) fn plan_anew(&mut self, context: &mut EventContext, is_stored: bool) {
        let devices = self.crew.devices(context);
        if self.planning.has_considered(&devices) {
            return;
        }
        if let Some(what) = self.lacks(context, devices.len() as u64) {
            return self.wait_for(context, what);
        }
        let proposed = self.propose(&devices);
        self.planning.consider(devices);
        match proposed {
            Ok(proposal) => {
                if !is_stored {
                    self.fall_back(context);
                }
                self.install(context, proposal);
            }
            Err(error) if is_hopeless(&error) => self.fail(context, error.to_string()),
            Err(error) => {
                // There is no plan without the worker that says that nobody can do the job.
                if let Some(reason) = self.crew.given_up().cloned() {
                    return self.fail(context, reason);
                }
                let (learned, absent) = (self.crew.shortages(), self.crew.absent(context));
                self.wait_for(context, format!("{error}{learned}{absent}"));
            }
        }
    }

    /// What is missing before a plan can be made of so many workers.
    fn lacks(&self, context: &EventContext, workers: u64) -> Option<String> {
        let options = self.options();
        if self.planning.epoch() > 0 {
            let what = |absent: String| match absent.as_str() {
                "" => "a worker, and none is left: start `concord worker`".to_string(),
                absent => format!("a worker that can take part{absent}"),
            };
            return (workers == 0).then(|| what(self.crew.absent(context)));
        }
        let slots = match &options.plan {
            PlanChoice::Auto => 1,
            PlanChoice::Fixed {
                stages, replicas, ..
            } => u64::from(*stages) * u64::from(*replicas),
        };
        let needed = slots.max(u64::from(options.min_workers));
        if workers < needed {
            let absent = self.crew.absent(context);
            return Some(format!("workers: {workers} of {needed} are here{absent}"));
        }
        let checkers = context.members.checkers().count();
        let needed = options.checkers;
        let missing = (checkers as u64) < u64::from(needed);
        missing.then(|| format!("checkers: {checkers} of {needed} are here"))
    }

    /// Plans as the user chose; if that is not possible any more after the first plan, as the
    /// planner chooses.
    fn propose(&self, devices: &[PlannerDevice]) -> Result<Proposal, PlanError> {
        let submission = &self.order.submission;
        let request = |choice| PlanRequest {
            job: self.order.id,
            epoch: self.planning.epoch() + 1,
            layers: submission.spec.layers,
            microbatches: submission.spec.microbatches,
            evaluation_microbatches: evaluation_microbatches(&submission.spec),
            profile: &submission.profile,
            choice,
            devices,
        };
        match planner::plan(&request(&submission.options.plan)) {
            Ok(planned) => Ok(Proposal {
                planned,
                as_chosen: true,
            }),
            Err(error) if self.planning.epoch() == 0 || is_hopeless(&error) => Err(error),
            Err(_) => Ok(Proposal {
                planned: planner::plan(&request(&PlanChoice::Auto))?,
                as_chosen: false,
            }),
        }
    }

    /// Why the plan in effect should go, if it should.
    pub(super) fn wants_new_plan(&mut self, context: &EventContext) -> Option<String> {
        let workers = self.planning.active()?.workers();
        let member = |id: &WorkerId| context.members.get(id);
        let leaves = |id: &&WorkerId| member(id).is_some_and(|member| member.draining);
        if let Some(worker) = workers.iter().find(leaves) {
            return Some(format!("worker {} leaves", worker.short()));
        }
        // It was planned before its address could be tried.
        let out_of_reach = |id: &WorkerId| Some((*id, member(id)?.out_of_reach()?));
        if let Some((worker, words)) = workers.iter().find_map(out_of_reach) {
            return Some(format!("worker {} {words}", worker.short()));
        }
        let devices = self.crew.devices(context);
        if self.planning.has_considered(&devices) {
            return None;
        }
        let proposed = self.propose(&devices);
        self.planning.consider(devices);
        let Proposal { planned, as_chosen } = proposed.ok()?;
        let active = self.planning.active()?;
        let because = active.worse_because(&planned, as_chosen);
        because.map(str::to_string)
    }

    fn install(&mut self, context: &mut EventContext, proposal: Proposal) {
        let Proposal { planned, as_chosen } = proposal;
        let spec = self.spec();
        if let Err(why) = planned.plan.validate(spec.layers, spec.microbatches) {
            let why = format!("the planner gave a plan that cannot be: {why}");
            return self.fail(context, why);
        }
        let (plan, depth) = (planned.plan.clone(), planned.depth);
        let predicted_step_us = planned.step_micros;
        let reason = self
            .planning
            .install(ActivePlan::new(context.now, planned, as_chosen));
        let workers: Vec<WorkerId> = plan.workers().map(|(_, id)| id).collect();
        for worker in &workers {
            self.journal.enrol(context, worker, false);
        }
        context.out.persist(Change::Plan { plan: plan.clone() });
        let step = self.committed.steps();
        let entry = LedgerEvent::Planned {
            plan: plan.clone(),
            step,
        };
        self.journal.write(context, entry);
        self.state = JobState::Running;
        let event = JobEvent::Planned {
            plan: plan.clone(),
            devices: workers.iter().map(|id| context.device_name(id)).collect(),
            predicted_step_us,
            step: self.spec().updates_before(step),
            reason,
        };
        self.journal.publish(context, event);
        self.assign(context, plan, depth);
    }

    fn assign(&mut self, context: &mut EventContext, plan: Plan, depth: u32) {
        let Some(state) = self.committed.stored_state() else {
            return;
        };
        let workers: Vec<WorkerId> = plan.workers().map(|(_, id)| id).collect();
        let assignment = Assignment {
            plan,
            spec: self.order.spec_blob,
            state: Digest::of_value(Domain::Blob, state),
            endpoints: workers.iter().map(|id| context.endpoint(id)).collect(),
            recompute: self.options().recompute,
            depth,
        };
        for worker in &workers {
            // It now replaces what it held.
            self.crew.forget_held(worker);
            context.send(worker, ToWorker::Assign(Box::new(assignment.clone())));
        }
    }

    /// A worker has its stage loaded.
    pub(super) fn on_ready(&mut self, worker: WorkerId, epoch: u32) {
        if let Some(layers) = self.planning.note_ready(worker, epoch) {
            self.crew.note_held(worker, self.committed.steps(), layers);
        }
    }
}

/// What an evaluation computes, in microbatches of an update.
fn evaluation_microbatches(spec: &JobSpec) -> u32 {
    let held_out = spec.evaluation.map_or(0, |of| of.held_out.sequences());
    held_out.div_ceil(spec.micro_batch_size.max(1))
}

/// Whether no pool could do it.
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
