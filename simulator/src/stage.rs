//! What a make-believe worker holds: a stage, a step in work, and what it opens to checkers.

use std::collections::BTreeMap;

use concord_proto::AttemptId;
use concord_proto::session::Assignment;
use concord_proto::tree::Node;
use concord_proto::{
    Digest, GradientPart, JobId, JobSpec, Layers, Leaf, LeafPhase, MicrobatchLoss, Port, PortKind,
    Signed, Slot,
};
use concord_verify::training::StepValues;

use super::arithmetic::{PerTensor, States};
use super::worker::Frame;

/// A stage, loaded.
pub struct Stage {
    pub job: JobId,
    pub spec: JobSpec,
    pub assignment: Assignment,
    pub slot: Slot,
    pub layers: Layers,
    /// The committed state.
    pub states: States,
    /// Steps done and committed.
    pub done: u32,
}

impl Stage {
    /// The microbatches of a step that are this stage's.
    pub fn run(&self, step: u32) -> std::ops::Range<u32> {
        let run = &self.assignment.plan.replicas[self.slot.replica];
        self.spec.run_of(step, run.start, run.end)
    }

    pub fn evaluates(&self, step: u32) -> bool {
        self.spec.is_evaluation(step)
    }
}

/// A step in work.
pub struct Work {
    pub attempt: AttemptId,
    pub previous: Option<AttemptId>,
    pub step: u32,
    pub inbox: BTreeMap<(PortKind, u32), Frame>,
    pub tokens: BTreeMap<u32, Digest>,
    pub made: BTreeMap<(LeafPhase, u32), Vec<Port>>,
    pub losses: Vec<MicrobatchLoss>,
    pub sums: BTreeMap<GradientPart, BTreeMap<Node, PerTensor>>,
    pub totals: Option<PerTensor>,
    /// The first half of the claim, once it is reported.
    pub first_half: Option<FirstReport>,
    pub after: Option<States>,
}

/// What was reported after the first phase.
pub struct FirstReport {
    pub signed: Signed,
    pub leaves: Vec<Leaf>,
    pub values: StepValues,
}

/// What a checker needs to re-run the leaves of a step.
#[derive(Clone)]
pub struct Openings {
    pub spec: JobSpec,
    pub layers: Layers,
    pub before: States,
    pub tokens: BTreeMap<u32, Digest>,
    pub sums: BTreeMap<GradientPart, BTreeMap<Node, PerTensor>>,
    /// The numbers of the scalars, once they are known.
    pub numbers: Digest,
}
