//! A job as a worker holds it: a stage, its committed state, and the step in progress.

use concord_proto::session::{Held, Scalars, ToCoordinator};
use concord_proto::{JobId, JobSpec, Plan};

use super::run::StepRun;
use super::{CommittedStage, EngineContext, EngineEffect, ReceivedFrame};
use crate::RuntimeError;
use crate::blobs::OpenBlob;
use crate::training::assignment::FetchedStage;
use crate::training::data::Microbatch;
use crate::witness::AttemptPlace;

/// A job in the hands of a worker.
pub(super) struct StageJob {
    committed: CommittedStage,
    run: Option<StepRun>,
    /// Frames of a step that has not started here yet.
    early: Vec<ReceivedFrame>,
}

impl StageJob {
    pub(super) fn load(
        context: &EngineContext,
        fetched: FetchedStage,
    ) -> Result<Self, RuntimeError> {
        Ok(Self {
            committed: CommittedStage::load(context, fetched)?,
            run: None,
            early: Vec::new(),
        })
    }

    pub(super) fn id(&self) -> JobId {
        self.committed.id
    }

    /// The epoch of its plan.
    pub(super) fn epoch(&self) -> u32 {
        self.committed.plan.epoch
    }

    /// What the coordinator may count on when it comes back.
    pub(super) fn held(&self) -> Held {
        self.committed.held()
    }

    /// Drops the stage and the step in progress; the committed state stays.
    pub(super) fn unload(&mut self, context: &EngineContext) {
        self.abort(context);
        self.committed.stage = None;
    }

    pub(super) fn start_step(
        &mut self,
        context: &EngineContext,
        (at, step): (AttemptPlace, u32),
        batches: Vec<(u32, Microbatch)>,
    ) {
        let committed = self.committed.step;
        if step != committed {
            tracing::warn!("asked for step {step} while {committed} are committed");
            return;
        }
        self.drop_run(context);
        let Some(stage) = &self.committed.stage else {
            return;
        };
        let batches = batches.into_iter().collect();
        self.run = Some(StepRun::new(&self.committed, stage, at, batches));
        for frame in std::mem::take(&mut self.early) {
            self.receive(frame);
        }
    }

    /// Takes tensors in, or holds them for a step that has not started here yet.
    pub(super) fn receive(&mut self, frame: ReceivedFrame) {
        let (step, committed) = (frame.header.step, &self.committed);
        if frame.header.epoch != committed.plan.epoch {
            return;
        }
        let is_early = match &self.run {
            Some(_) => step == committed.step + 1,
            None => step == committed.step || step == committed.step + 1,
        };
        if is_early {
            if self.early.len() < early_frames_max(&committed.spec, &committed.plan) {
                self.early.push(frame);
            }
        } else if step == committed.step
            && let Some(run) = &mut self.run
        {
            run.receive(committed, frame);
        }
    }

    /// Hidden states of a microbatch are on the link to the next stage.
    pub(super) fn sent(&mut self, step: u32, microbatch: u32) {
        if let Some(run) = self.run.as_mut().filter(|_| step == self.committed.step) {
            run.sent(microbatch);
        }
    }

    /// Does one unit of work of the step in progress. False where there is none, or where it fails.
    pub(super) fn work(&mut self, context: &EngineContext) -> bool {
        let Some(run) = &mut self.run else {
            return false;
        };
        match run.work(&self.committed, context) {
            Ok(worked) => worked,
            Err(error) => {
                self.fail(context, error);
                false
            }
        }
    }

    pub(super) fn update(&mut self, context: &EngineContext, scalars: &Scalars) {
        let Some(run) = &mut self.run else { return };
        if scalars.step == self.committed.step
            && let Err(error) = run.update(&self.committed, context, scalars)
        {
            self.fail(context, error);
        }
    }

    /// Drops the step in progress, and tells the coordinator. If memory is short, the stage is
    /// dropped, too: only the committed state, which has to be stored, is worth its memory.
    fn fail(&mut self, context: &EngineContext, error: RuntimeError) {
        let error = error.in_step(self.committed.updates());
        if error.out_of_memory().is_some() {
            self.unload(context);
        } else {
            self.drop_run(context);
        }
        context.fail(self.id(), self.epoch(), error);
    }

    /// The update becomes the state.
    pub(super) fn commit(&mut self, context: &EngineContext, step: u32) {
        let committed = &mut self.committed;
        if step != committed.step {
            return;
        }
        let Some(updated) = self.run.as_mut().and_then(|run| run.updated.take()) else {
            return;
        };
        self.run = None;
        let (evaluated, updates) = (committed.evaluates(), committed.updates());
        let refreshed = match &mut committed.stage {
            Some(stage) if !evaluated && !context.faults.keeps_weights_at_commit(step) => {
                stage.refresh(&updated.state)
            }
            _ => Ok(()),
        };
        committed.state = updated.state;
        committed.entries = updated.entries;
        committed.step += 1;
        context.set_held(Some(committed.held()));
        if let Err(error) = refreshed {
            committed.stage = None;
            let error = RuntimeError::from(error).in_step(updates);
            context.fail(self.id(), self.epoch(), error);
        }
    }

    /// Drops the step in progress; the committed state stays.
    pub(super) fn abort(&mut self, context: &EngineContext) {
        self.drop_run(context);
        self.early.clear();
    }

    fn drop_run(&mut self, context: &EngineContext) {
        if self.run.take().is_some() {
            let (job, step, epoch) = (self.id(), self.committed.step, self.epoch());
            context.openings(|openings| openings.remove(job, step, epoch));
        }
    }

    /// Hands the committed state to the store.
    pub(super) fn flush(&mut self, context: &EngineContext) {
        let committed = &self.committed;
        let mut blobs = Vec::new();
        for held in committed.state.0.values() {
            blobs.push(OpenBlob::Tensor(held.value.clone()));
            let moments = [&held.first_moment, &held.second_moment];
            blobs.extend(moments.map(|moment| OpenBlob::Moment(moment.clone())));
        }
        let then = ToCoordinator::Flushed {
            job: committed.id,
            step: committed.step,
            state: committed.entries.clone(),
        };
        context.effect(EngineEffect::Upload {
            job: committed.id,
            epoch: committed.plan.epoch,
            blobs,
            then,
        });
    }
}

/// Frames of one step that can come before it starts here: hidden states, gradients and partials.
fn early_frames_max(spec: &JobSpec, plan: &Plan) -> usize {
    let nodes = 3 * 2 * (spec.microbatches.ilog2() as usize + 1) * plan.replicas.len();
    let evaluated = spec
        .evaluation
        .map_or(0, |evaluation| evaluation.microbatches());
    (2 * spec.microbatches).max(evaluated) as usize + nodes
}
