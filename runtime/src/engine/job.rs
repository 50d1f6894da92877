//! A job as a worker holds it: a stage, its committed state, and the step in progress.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::Device;
use concord_models::config::DecoderConfig;
use concord_models::decoder::Stage;
use concord_models::train::TrainState;
use concord_proto::manifest::StateEntry;
use concord_proto::session::{Held, ToCoordinator};
use concord_proto::{Digest, JobId, JobSpec, Layers, Plan, Port, Slot, TensorState, WorkerId};

use super::run::Run;
use super::{Engine, EngineEffect, ReceivedFrame};
use crate::data::Microbatch;
use crate::model_blobs::ModelBlobs;
use crate::{RuntimeError, spec as words, work};

/// What a stage is loaded from: everything has been fetched and checked.
pub(crate) struct LoadedStage {
    pub(crate) job: JobId,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) plan: Plan,
    pub(crate) endpoints: Vec<String>,
    pub(crate) seat: Slot,
    pub(crate) config: Arc<DecoderConfig>,
    pub(crate) tensors: ModelBlobs,
    pub(crate) state: TrainState,
    pub(crate) step: u32,
    pub(crate) sequence_len: usize,
    pub(crate) recompute: bool,
    pub(crate) depth: u32,
    /// The precision of a worker that cheats.
    #[cfg(feature = "liars")]
    pub(crate) lower_precision: Option<concord_kernels::coded::Precision>,
}

/// A job in the hands of a worker.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) plan: Plan,
    pub(crate) plan_digest: Digest,
    pub(crate) endpoints: BTreeMap<WorkerId, String>,
    pub(crate) seat: Slot,
    pub(crate) layers: Layers,
    /// None where it lacks the committed values, or made room for that of another plan: then no
    /// step can be done. Invariant: there is one while there is a run.
    pub(crate) stage: Option<Stage>,
    pub(crate) recompute: bool,
    pub(crate) depth: u32,
    /// Steps committed.
    pub(crate) step: u32,
    pub(crate) state: TrainState,
    pub(crate) entries: Vec<TensorState>,
    pub(crate) run: Option<Run>,
    /// Frames of a step that has not started here yet.
    pub(crate) early: Vec<ReceivedFrame>,
}

impl Job {
    pub(crate) fn load(device: &Device, loaded: LoadedStage) -> Result<Self, RuntimeError> {
        let layers = loaded.plan.stages[loaded.seat.stage];
        #[cfg_attr(not(feature = "liars"), expect(unused_mut))]
        let mut options = words::stage_options(
            &loaded.spec,
            loaded.config.clone(),
            layers,
            device,
            loaded.sequence_len,
        )?;
        #[cfg(feature = "liars")]
        if let Some(precision) = loaded.lower_precision {
            options.precisions.weights = precision;
        }
        let state = loaded.state.placed(device)?;
        let stage = Stage::load(options, &loaded.tensors, &state)?;
        let entries = work::entries(&loaded.spec, layers, &state)?;
        let workers = loaded.plan.workers().map(|(_, worker)| worker);
        Ok(Self {
            id: loaded.job,
            endpoints: workers.zip(loaded.endpoints).collect(),
            plan_digest: loaded.plan.digest(),
            spec: loaded.spec,
            plan: loaded.plan,
            seat: loaded.seat,
            layers,
            stage: Some(stage),
            recompute: loaded.recompute,
            depth: loaded.depth,
            step: loaded.step,
            state,
            entries,
            run: None,
            early: Vec::new(),
        })
    }

    /// What the coordinator may count on after it was gone.
    pub(crate) fn held(&self) -> Held {
        Held {
            job: self.id,
            step: self.step,
            layers: self.layers,
        }
    }

    /// The ports of the committed state.
    pub(crate) fn state_ports(&self) -> Vec<Port> {
        let entries: Vec<StateEntry> = self.entries.iter().map(|state| state.entry).collect();
        work::state_ports(&entries)
    }

    /// The stage of the run in progress.
    pub(crate) fn stage(&self) -> &Stage {
        self.stage.as_ref().expect("a run has a stage")
    }

    /// Drops the stage and the step in progress; the committed state stays.
    pub(crate) fn unload(&mut self, engine: &mut Engine) {
        self.abort(engine);
        self.stage = None;
    }

    pub(crate) fn start_step(
        &mut self,
        engine: &mut Engine,
        step: u32,
        batches: Vec<(u32, Microbatch)>,
    ) {
        if step != self.step {
            tracing::warn!("asked for step {step} while {} are committed", self.step);
            return;
        }
        self.drop_run(engine);
        let Some(stage) = &self.stage else { return };
        self.run = Some(Run::new(self, stage, batches.into_iter().collect()));
        for frame in std::mem::take(&mut self.early) {
            self.receive(frame);
        }
    }

    /// Takes tensors in, or keeps them for a step that has not started here yet.
    pub(crate) fn receive(&mut self, frame: ReceivedFrame) {
        if frame.header.epoch != self.plan.epoch {
            return;
        }
        let is_early = match &self.run {
            Some(_) => frame.header.step == self.step + 1,
            None => frame.header.step == self.step || frame.header.step == self.step + 1,
        };
        if is_early {
            if self.early.len() < early_frames_max(&self.spec, &self.plan) {
                self.early.push(frame);
            }
        } else if frame.header.step == self.step
            && let Some(mut run) = self.run.take()
        {
            run.receive(self, frame);
            self.run = Some(run);
        }
    }

    /// Does one unit of work of the step in progress.
    pub(crate) fn work(&mut self, engine: &mut Engine) -> Result<bool, RuntimeError> {
        let Some(mut run) = self.run.take() else {
            return Ok(false);
        };
        let worked = run.work(self, engine);
        self.run = Some(run);
        worked
    }

    pub(crate) fn update(
        &mut self,
        engine: &mut Engine,
        scalars: &concord_proto::session::Scalars,
    ) {
        let Some(mut run) = self.run.take() else {
            return;
        };
        let updated = if scalars.step == self.step {
            run.update(self, engine, scalars)
        } else {
            Ok(())
        };
        self.run = Some(run);
        if let Err(error) = updated {
            self.fail(engine, error);
        }
    }

    /// Drops the step in progress, and tells the coordinator. Where memory is short, the stage goes
    /// too: the committed state, which has to leave, is all that is worth its room.
    pub(crate) fn fail(&mut self, engine: &mut Engine, error: RuntimeError) {
        let error = error.in_step(self.step);
        if error.out_of_memory().is_some() {
            self.unload(engine);
        } else {
            self.drop_run(engine);
        }
        engine.fail(self.id, self.plan.epoch, error);
    }

    /// The update becomes the state.
    pub(crate) fn commit(&mut self, engine: &mut Engine, step: u32) {
        if step != self.step {
            return;
        }
        let Some(updated) = self.run.as_mut().and_then(|run| run.updated.take()) else {
            return;
        };
        self.run = None;
        #[cfg(feature = "liars")]
        let stale = engine
            .lie
            .as_ref()
            .is_some_and(|lie| lie.keeps_stale_weights(step));
        #[cfg(not(feature = "liars"))]
        let stale = false;
        let refreshed = match &mut self.stage {
            Some(stage) if !stale => stage.refresh(&updated.state),
            _ => Ok(()),
        };
        self.state = updated.state;
        self.entries = updated.entries;
        self.step += 1;
        engine.set_held(Some(self.held()));
        if let Err(error) = refreshed {
            self.stage = None;
            let error = RuntimeError::from(error).in_step(step);
            engine.fail(self.id, self.plan.epoch, error);
        }
    }

    /// Drops the step in progress; the committed state stays.
    pub(crate) fn abort(&mut self, engine: &mut Engine) {
        self.drop_run(engine);
        self.early.clear();
    }

    pub(crate) fn drop_run(&mut self, engine: &mut Engine) {
        if self.run.take().is_some() {
            let (job, step, epoch) = (self.id, self.step, self.plan.epoch);
            engine.openings(|openings| openings.remove(job, step, epoch));
        }
    }

    /// Hands the committed state to the store.
    pub(crate) fn flush(&mut self, engine: &mut Engine) {
        let mut tensors = Vec::new();
        for held in self.state.0.values() {
            tensors.extend([&held.value, &held.first_moment, &held.second_moment].map(Arc::clone));
        }
        let state = self.entries.clone();
        let then = ToCoordinator::Flushed {
            job: self.id,
            step: self.step,
            state,
        };
        engine.effect(EngineEffect::Upload {
            job: self.id,
            epoch: self.plan.epoch,
            tensors,
            then,
        });
    }
}

/// Frames of one step that can come before it starts here: hidden states, gradients and partials.
fn early_frames_max(spec: &JobSpec, plan: &Plan) -> usize {
    let nodes = 3 * 2 * (spec.microbatches.ilog2() as usize + 1) * plan.replicas.len();
    2 * spec.microbatches as usize + nodes
}
