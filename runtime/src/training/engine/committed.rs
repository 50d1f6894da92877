//! The stage of a job as it was committed last: what a step is computed from and does not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_models::decoder::Stage;
use concord_models::train::TrainState;
use concord_proto::manifest::StateEntry;
use concord_proto::session::Held;
use concord_proto::{Digest, JobId, JobSpec, Layers, Plan, Port, Slot, TensorState, WorkerId};

use super::EngineContext;
use crate::training::assignment::FetchedStage;
use crate::training::leaf_work;
use crate::{RuntimeError, spec};

/// A stage under a plan, with its committed state.
pub(super) struct CommittedStage {
    pub(super) id: JobId,
    pub(super) spec: Arc<JobSpec>,
    pub(super) plan: Plan,
    pub(super) plan_digest: Digest,
    pub(super) endpoints: BTreeMap<WorkerId, String>,
    pub(super) slot: Slot,
    pub(super) layers: Layers,
    /// None if it does not have the committed values, or was dropped for the stage of another plan:
    /// then no step can be done. Invariant: there is one while there is a run.
    pub(super) stage: Option<Stage>,
    pub(super) recompute: bool,
    pub(super) depth: u32,
    /// Steps committed.
    pub(super) step: u32,
    pub(super) state: TrainState,
    pub(super) entries: Vec<TensorState>,
}

impl CommittedStage {
    pub(super) fn load(
        context: &EngineContext,
        fetched: FetchedStage,
    ) -> Result<Self, RuntimeError> {
        let layers = fetched.plan.stages[fetched.slot.stage];
        let mut options = spec::stage_options(
            &fetched.spec,
            fetched.config.clone(),
            layers,
            &context.device,
            fetched.sequence_len,
        )?;
        context.faults.before_loading_stage(&mut options);
        let state = fetched.state.placed(&context.device)?;
        let stage = Stage::load(options, &fetched.tensors, &state)?;
        let entries = leaf_work::entries(&fetched.spec, layers, &state)?;
        let workers = fetched.plan.workers().map(|(_, worker)| worker);
        Ok(Self {
            id: fetched.job,
            endpoints: workers.zip(fetched.endpoints).collect(),
            plan_digest: fetched.plan.digest(),
            spec: fetched.spec,
            plan: fetched.plan,
            slot: fetched.slot,
            layers,
            stage: Some(stage),
            recompute: fetched.recompute,
            depth: fetched.depth,
            step: fetched.step,
            state,
            entries,
        })
    }

    /// What the coordinator may count on when it comes back.
    pub(super) fn held(&self) -> Held {
        Held {
            job: self.id,
            step: self.step,
            layers: self.layers,
        }
    }

    /// The ports of the committed state.
    pub(super) fn state_ports(&self) -> Vec<Port> {
        let entries: Vec<StateEntry> = self.entries.iter().map(|state| state.entry).collect();
        leaf_work::state_ports(&entries)
    }

    /// Updates before the next step.
    pub(super) fn updates(&self) -> u32 {
        self.spec.updates_before(self.step)
    }

    /// Whether the next step is an evaluation.
    pub(super) fn evaluates(&self) -> bool {
        self.spec.is_evaluation(self.step)
    }

    /// The stage of the run in progress.
    pub(super) fn stage(&self) -> &Stage {
        self.stage.as_ref().expect("a run has a stage")
    }

    /// The workers of this pipeline, stage by stage.
    pub(super) fn pipeline(&self) -> &[WorkerId] {
        &self.plan.replicas[self.slot.replica].workers
    }
}
