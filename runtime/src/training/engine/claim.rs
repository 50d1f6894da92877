//! The end of a step: the update, and the claim of all its leaves.

use concord_proto::session::{Scalars, ToCoordinator};
use concord_proto::{Claim, F32Bits, Leaf, LeafPhase, Signed, leaf_root};

use super::run::{StepProgress, StepRun};
use super::{CommittedStage, EngineContext};
use crate::RuntimeError;
use crate::faults::{StateMut, StateRef};
use crate::training::leaf_work::{self, Updated};

impl StepRun {
    /// Computes the update and signs the claim. The committed state stays as it is until the
    /// commit.
    pub(super) fn update(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        scalars: &Scalars,
    ) -> Result<(), RuntimeError> {
        if self.progress != StepProgress::Reported || self.updated.is_some() {
            return Ok(());
        }
        let updated = match self.evaluates {
            true => leaf_work::evaluated(&job.state, &job.entries, scalars)?,
            false => self.updated_state(job, context, scalars)?,
        };
        self.claim(job, context, updated);
        Ok(())
    }

    /// The update, with its leaf.
    fn updated_state(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        scalars: &Scalars,
    ) -> Result<Updated, RuntimeError> {
        let mut updated = leaf_work::update(
            &job.spec,
            job.layers,
            &context.device,
            &job.state,
            &self.step_gradients,
            scalars,
        )?;
        let committed = StateRef {
            state: &job.state,
            entries: &job.entries,
        };
        let next = StateMut {
            state: &mut updated.state,
            entries: &mut updated.entries,
        };
        context.faults.after_update(job.step, committed, next);
        let inputs = job.update_inputs(&mut self.openings, &self.exchange, scalars);
        let outputs = updated.outputs();
        let leaf = job.leaf(&mut self.openings, LeafPhase::Update, 0, inputs, outputs);
        self.leaves.insert((LeafPhase::Update, 0), leaf);
        Ok(updated)
    }

    /// Signs the claim of all leaves, and hands it in.
    fn claim(&mut self, job: &CommittedStage, context: &EngineContext, updated: Updated) {
        // The order of a claim: phase by phase, each by rising microbatch.
        let leaves: Vec<Leaf> = self.leaves.values().cloned().collect();
        let claim = Claim {
            job: job.id,
            step: job.step,
            epoch: job.plan.epoch,
            plan: job.plan_digest,
            arithmetic: job.spec.arithmetic,
            device: context.device_name.clone(),
            leaf_root: leaf_root(&leaves),
            loss: F32Bits::from(updated.loss),
            grad_norm: F32Bits::from(updated.scalars.grad_norm),
            learning_rate: F32Bits::from(updated.scalars.learning_rate),
            state: updated.entries.clone(),
        };
        let openings = std::mem::take(&mut self.openings);
        context.openings(|all| all.insert(job.id, job.step, job.plan.epoch, openings));
        self.updated = Some(updated);
        let mut claim = Signed::new(&context.key, &claim);
        context.faults.before_sending_claim(job.step, &mut claim);
        context.report(ToCoordinator::Updated { claim, leaves });
    }
}
