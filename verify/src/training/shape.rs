//! Which inputs and outputs the leaves of a worker must have, by its slot in the plan.

use concord_proto::tree::{self, Node};
use concord_proto::{
    Digest, GradientPart, JobSpec, Layers, Leaf, LeafPhase, ModelPlace, Plan, PortKind, Slot,
    TrainedTensor, WorkerId,
};

use super::StepRules;

/// An input that a leaf must have.
pub(super) struct Need {
    pub(super) kind: PortKind,
    /// The digest that it must have, where something outside of the claim tells.
    pub(super) digest: Option<Digest>,
    /// The other worker that it must come from, if any.
    pub(super) from: Option<WorkerId>,
}

/// The ports that a leaf must have.
pub(super) struct LeafShape {
    pub(super) needs: Vec<Need>,
    pub(super) outputs: Vec<PortKind>,
}

impl Need {
    fn known(kind: PortKind, digest: Digest) -> Self {
        let digest = Some(digest);
        let from = None;
        Self { kind, digest, from }
    }

    fn sent(kind: PortKind, from: WorkerId) -> Self {
        let digest = None;
        let from = Some(from);
        Self { kind, digest, from }
    }

    fn own(kind: PortKind) -> Self {
        let (digest, from) = (None, None);
        Self { kind, digest, from }
    }
}

/// The sums that a stage's backward pass gives.
pub fn parts(spec: &JobSpec, layers: Layers) -> Vec<GradientPart> {
    let is_tied = |tensor: &TrainedTensor| tensor.place == ModelPlace::EmbedAndHead;
    let held = |tensor: &TrainedTensor| layers.holds(tensor.place, &tensor.name, spec.layers);
    let mut trained = spec.trainable.iter();
    let tied = spec.trainable.iter().any(is_tied);
    let mut parts = Vec::new();
    if trained.any(|tensor| !is_tied(tensor) && held(tensor)) {
        parts.push(GradientPart::Own);
    }
    if tied && layers.start == 0 {
        parts.push(GradientPart::TiedEmbed);
    }
    if tied && layers.end == spec.layers {
        parts.push(GradientPart::TiedHead);
    }
    parts
}

/// The index of the leaf of a phase among the leaves of a claim of `step`, or `None` where there is
/// no such leaf. `microbatch` is the first of the node for a sum, and 0 for norms and the
/// update.
pub fn leaf_position(
    (spec, step): (&JobSpec, u32),
    plan: &Plan,
    replica: usize,
    phase: LeafPhase,
    microbatch: u32,
) -> Option<usize> {
    let replica = plan.replicas.get(replica)?;
    let run = spec.run_of(step, replica.start, replica.end);
    let (count, in_run) = (run.len(), run.contains(&microbatch));
    if spec.is_evaluation(step) && phase != LeafPhase::Forward {
        return None;
    }
    let offset = || (microbatch - run.start) as usize;
    let nodes = tree::cover(spec.microbatches, run.start, run.end);
    match phase {
        LeafPhase::Forward => in_run.then(offset),
        LeafPhase::Backward => in_run.then(|| count + offset()),
        LeafPhase::Reduce => nodes
            .iter()
            .position(|node| node.start == microbatch)
            .map(|index| 2 * count + index),
        LeafPhase::Norm => (microbatch == 0).then_some(2 * count + nodes.len()),
        LeafPhase::Update => (microbatch == 0).then_some(2 * count + nodes.len() + 1),
    }
}

/// What a leaf is, for people, such as "forward of microbatch 3 through layers 0 to 4".
pub fn leaf_words(leaf: &Leaf) -> String {
    let Leaf {
        layers, microbatch, ..
    } = leaf;
    match leaf.phase {
        LeafPhase::Forward => format!("forward of microbatch {microbatch}, layers {layers}"),
        LeafPhase::Backward => {
            format!("backward of microbatch {microbatch}, layers {layers}")
        }
        LeafPhase::Reduce => format!("sum from microbatch {microbatch}, layers {layers}"),
        LeafPhase::Norm => format!("gradient norms of layers {layers}"),
        LeafPhase::Update => format!("update of layers {layers}"),
    }
}

impl StepRules<'_> {
    fn neighbour(&self, slot: Slot, stage: usize) -> WorkerId {
        self.plan.replicas[slot.replica].workers[stage]
    }

    /// Tokens are needed at both ends: the first stage embeds them, the last compares with them.
    fn at_an_end(&self, slot: Slot) -> bool {
        slot.stage == 0 || slot.stage + 1 == self.plan.stages.len()
    }

    fn common_inputs(&self, slot: Slot, microbatch: u32) -> Vec<Need> {
        let layers = self.plan.stages[slot.stage];
        let (values, _) = self.stage_roots(layers);
        let mut needs = vec![Need::known(PortKind::State, values)];
        if self.at_an_end(slot) {
            let digest = self.microbatches[microbatch as usize];
            needs.push(Need::known(PortKind::Tokens, digest));
        }
        if slot.stage > 0 {
            let from = self.neighbour(slot, slot.stage - 1);
            needs.push(Need::sent(PortKind::Activation(layers.start), from));
        }
        needs
    }

    pub(super) fn forward(&self, slot: Slot, microbatch: u32) -> LeafShape {
        let layers = self.plan.stages[slot.stage];
        let output = if layers.end == self.spec.layers {
            PortKind::Loss
        } else {
            PortKind::Activation(layers.end)
        };
        LeafShape {
            needs: self.common_inputs(slot, microbatch),
            outputs: vec![output],
        }
    }

    pub(super) fn backward(&self, slot: Slot, microbatch: u32) -> LeafShape {
        let layers = self.plan.stages[slot.stage];
        let mut needs = self.common_inputs(slot, microbatch);
        if slot.stage + 1 < self.plan.stages.len() {
            let from = self.neighbour(slot, slot.stage + 1);
            needs.push(Need::sent(PortKind::Gradient(layers.end), from));
        }
        let node = Node::leaf(microbatch);
        let mut outputs: Vec<PortKind> = parts(self.spec, layers)
            .into_iter()
            .map(|part| PortKind::Partial { node, part })
            .collect();
        if slot.stage > 0 {
            outputs.push(PortKind::Gradient(layers.start));
        }
        LeafShape { needs, outputs }
    }

    pub(super) fn reduce(&self, slot: Slot, node: Node) -> LeafShape {
        let parts = parts(self.spec, self.plan.stages[slot.stage]);
        let input = |microbatch, part| {
            let node = Node::leaf(microbatch);
            Need::own(PortKind::Partial { node, part })
        };
        let needs = parts
            .iter()
            .flat_map(|&part| (node.start..node.end).map(move |m| input(m, part)))
            .collect();
        let outputs = parts
            .iter()
            .map(|&part| PortKind::Partial { node, part })
            .collect();
        LeafShape { needs, outputs }
    }

    pub(super) fn norm(&self, slot: Slot) -> LeafShape {
        LeafShape {
            needs: self.step_sums(slot),
            outputs: vec![PortKind::Norms],
        }
    }

    pub(super) fn update(&self, slot: Slot) -> LeafShape {
        let layers = self.plan.stages[slot.stage];
        let (values, moments) = self.stage_roots(layers);
        let mut needs = vec![
            Need::known(PortKind::State, values),
            Need::known(PortKind::Moments, moments),
            Need {
                kind: PortKind::Scalars,
                digest: None,
                from: None,
            },
        ];
        needs.extend(self.step_sums(slot));
        LeafShape {
            needs,
            outputs: vec![PortKind::State, PortKind::Moments],
        }
    }

    /// The partial sums that make the gradients of a stage over the whole step.
    fn step_sums(&self, slot: Slot) -> Vec<Need> {
        let layers = self.plan.stages[slot.stage];
        let mut needs = Vec::new();
        let held = parts(self.spec, layers);
        let tied = held.iter().any(|&part| part != GradientPart::Own);
        let own = held
            .contains(&GradientPart::Own)
            .then_some(GradientPart::Own);
        let ends = tied.then_some([GradientPart::TiedEmbed, GradientPart::TiedHead]);
        for part in own.into_iter().chain(ends.into_iter().flatten()) {
            let stage = match part {
                GradientPart::Own => slot.stage,
                GradientPart::TiedEmbed => 0,
                GradientPart::TiedHead => self.plan.stages.len() - 1,
            };
            for (replica, run) in self.plan.replicas.iter().enumerate() {
                let is_own = (Slot { replica, stage }) == slot;
                needs.extend(self.nodes(replica).into_iter().map(|node| {
                    let kind = PortKind::Partial { node, part };
                    if is_own {
                        Need::own(kind)
                    } else {
                        Need::sent(kind, run.workers[stage])
                    }
                }));
            }
        }
        needs
    }
}
