//! What an honest claim looks like: the rules that need no arithmetic.
//!
//! The coordinator checks every claim by them before a step is committed, and `concord verify` does
//! so again. A broken rule names the party at fault; where two claims differ and only arithmetic
//! could tell who is wrong, the outcome is a [`Disagreement`].
//!
//! Leaves of a claim, in order: one Forward for each microbatch of the replica's run, one Backward
//! for each, one Reduce for each node of the run's [`concord_proto::tree::cover`], one Norm, one
//! Update. The update is the second half of the claim, all before it the first. Where the step is
//! an evaluation, there are the Forwards alone. The order of the ports of a leaf is free.

mod agreement;
pub mod bundle;
mod claim;
mod conviction;
mod halves;
pub mod heads;
mod leaves;
mod links;
mod means;
pub mod segments;
mod shape;

use std::ops::Range;

use concord_proto::AttemptId;
use concord_proto::ledger::Offence;
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::tree::{self, Node};
use concord_proto::{
    Claim, Conviction, Digest, Domain, F32Bits, JobId, JobSpec, Layers, Leaf, Plan, Signed,
    TensorNorm, TrainedTensor, WorkerId,
};

pub use agreement::{Disagreement, check_agreement, merged_state, step_record};
pub use claim::{check_claim, check_first_half, names_other_history};
pub use conviction::{
    ConvictionRules, DecidedVerdict, Shown, check_conviction, opens, sorted_ports,
};
pub use halves::{SignedFirst, WorkerClaim, split_leaves};
pub use links::check_links;
pub use means::{StepValues, check_own_values, check_scalars, not_a_number, values_of};
pub use shape::{leaf_position, leaf_words, parts};

/// A broken rule, and who broke it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {}: {}: {evidence}", culprit.short(), offence.as_str())]
pub struct Breach {
    /// The party at fault.
    pub culprit: WorkerId,
    /// Which offence it is.
    pub offence: Offence,
    /// What does not hold, in a sentence.
    pub evidence: String,
    /// What shows it to others, where what was signed does.
    pub conviction: Option<Box<Conviction>>,
}

/// What the claims of one step are checked against.
#[derive(Clone, Copy, Debug)]
pub struct StepRules<'a> {
    /// The job spec.
    pub spec: &'a JobSpec,
    /// Its digest.
    pub job: JobId,
    /// The plan that the step was done under.
    pub plan: &'a Plan,
    pub plan_digest: Digest,
    /// The attempt at the step that the claims are of.
    pub attempt: AttemptId,
    pub step: u32,
    /// The state before the step, one entry for each tensor of the spec.
    pub before: &'a [StateEntry],
    /// Digests of the microbatches of the step, in order.
    pub microbatches: &'a [Digest],
}

/// The leaves of the first half of a claim, and whose they are.
#[derive(Clone, Copy, Debug)]
pub struct ClaimedLeaves<'a> {
    /// Whose.
    pub worker: WorkerId,
    /// The signed [`concord_proto::FirstHalf`].
    pub signed: &'a Signed,
    pub leaves: &'a [Leaf],
}

/// A claim, opened, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Claimed<'a> {
    /// Whose.
    pub worker: WorkerId,
    pub claim: &'a Claim,
}

/// The digest in the Loss port of a Forward leaf: of the loss sum of one microbatch.
pub fn loss_digest(sum: F32Bits) -> Digest {
    Digest::of_value(Domain::Scalar, &sum)
}

/// The digest in the Norms port of a Norm leaf: of the squared norms of a stage, by rising tensor.
pub fn norms_digest(norms: &[TensorNorm]) -> Digest {
    Digest::of_value(Domain::Norms, &norms.to_vec())
}

/// Indices of the trained tensors that a stage holds, rising.
pub fn held_tensors(spec: &JobSpec, layers: Layers) -> Vec<u32> {
    let held = |tensor: &TrainedTensor| layers.holds(tensor.place, &tensor.name, spec.layers);
    (0u32..)
        .zip(&spec.trainable)
        .filter(|(_, tensor)| held(tensor))
        .map(|(index, _)| index)
        .collect()
}

impl StepRules<'_> {
    /// Roots over the values and over the moments of a stage before the step.
    fn stage_roots(&self, layers: Layers) -> (Digest, Digest) {
        let entries: Vec<StateEntry> = held_tensors(self.spec, layers)
            .into_iter()
            .filter_map(|index| self.before.get(index as usize).copied())
            .collect();
        state_roots(&entries)
    }

    /// The microbatches of the step that a replica computes.
    fn run(&self, replica: usize) -> Range<u32> {
        let run = &self.plan.replicas[replica];
        self.spec.run_of(self.step, run.start, run.end)
    }

    /// The step, for people.
    fn words(&self) -> String {
        self.spec.words(self.step)
    }

    fn is_evaluation(&self) -> bool {
        self.spec.is_evaluation(self.step)
    }

    /// The nodes that a replica's run is summed up to.
    fn nodes(&self, replica: usize) -> Vec<Node> {
        let run = self.run(replica);
        tree::cover(self.spec.microbatches, run.start, run.end)
    }
}
