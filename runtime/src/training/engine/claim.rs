//! What a worker signs for a step: the first half of its claim once its gradients are summed up,
//! the second once it has its update.

use concord_proto::session::{Scalars, ToCoordinator};
use concord_proto::{
    Claim, Digest, FirstHalf, Leaf, LeafPhase, Signed, first_half_digest, leaf_root,
};
use concord_verify::training::{StepValues, check_own_values, split_leaves};

use super::run::{HandedIn, StepRun};
use super::{CommittedStage, EngineContext};
use crate::RuntimeError;
use crate::faults::{StateMut, StateRef};
use crate::training::leaf_work::{self, Updated};

impl StepRun {
    /// Signs the leaves up to the norms, and hands them in with these losses and norms. From here
    /// on checkers may ask for what opens them.
    pub(super) fn claim_first_half(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        values: StepValues,
    ) {
        // The order of a claim: phase by phase, each by rising microbatch.
        let leaves: Vec<Leaf> = self.leaves.values().cloned().collect();
        let half = FirstHalf {
            job: job.id,
            attempt: self.attempt,
            previous: self.previous,
            step: job.step,
            epoch: job.plan.epoch,
            plan: job.plan_digest,
            arithmetic: job.spec.arithmetic,
            leaf_root: leaf_root(&leaves),
        };
        self.share_openings(job, context);
        let first_half = Signed::new(&context.key, &half);
        self.handed_in = Some(HandedIn {
            digest: first_half_digest(&first_half),
            values: values.clone(),
        });
        context.report(ToCoordinator::Computed {
            job: job.id,
            epoch: job.plan.epoch,
            step: job.step,
            first_half,
            leaves,
            losses: values.losses,
            norms: values.norms,
        });
    }

    /// Gives what opens the leaves so far to whoever audits them.
    fn share_openings(&mut self, job: &CommittedStage, context: &EngineContext) {
        let openings = std::mem::take(&mut self.openings);
        context.openings(|all| all.add(job.id, job.step, job.plan.epoch, openings));
    }

    /// Computes the update and signs the claim. The committed state stays as it is until the
    /// commit.
    pub(super) fn update(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        scalars: &Scalars,
    ) -> Result<(), RuntimeError> {
        let handed_in = self.handed_in.as_ref();
        let Some(HandedIn { digest, values }) = handed_in.filter(|_| self.updated.is_none()) else {
            return Ok(());
        };
        // What the coordinator sends to all must have what this worker stands for.
        let worker = context.key.public();
        check_own_values(&job.spec, &job.plan, worker, scalars, (*digest, values))
            .map_err(RuntimeError::AlteredScalars)?;
        let digest = *digest;
        let updated = match self.evaluates {
            true => leaf_work::evaluated(&job.state, &job.entries),
            false => self.updated_state(job, context, scalars)?,
        };
        self.claim(job, context, digest, updated);
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

    /// Signs the second half of the claim, and hands it in.
    fn claim(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        first_half: Digest,
        updated: Updated,
    ) {
        let leaves: Vec<Leaf> = self.leaves.values().cloned().collect();
        let leaves = split_leaves(&leaves).1.to_vec();
        let claim = Claim {
            job: job.id,
            step: job.step,
            epoch: job.plan.epoch,
            first_half,
            device: context.device_name.clone(),
            leaf_root: leaf_root(&leaves),
            state: updated.entries.clone(),
        };
        self.share_openings(job, context);
        self.updated = Some(updated);
        let mut claim = Signed::new(&context.key, &claim);
        context.faults.before_sending_claim(job.step, &mut claim);
        context.report(ToCoordinator::Updated { claim, leaves });
    }
}
