//! The claims of a make-believe worker, and their re-run.

use std::collections::BTreeMap;

use concord_proto::AttemptId;
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::session::{Scalars, ToCoordinator};
use concord_proto::tree::{self, Node};
use concord_proto::{
    Claim, ClaimInput, Digest, FirstHalf, GradientPart, JobSpec, Keypair, Leaf, LeafPhase, Port,
    PortKind, Signed, TensorNorm, TensorState, WorkerId, first_half_digest, leaf_root,
};
use concord_verify::training::{loss_digest, norms_digest, parts};

use super::arithmetic::{self as fake, Inputs, PerTensor, States};
use super::lies::{Kind, Lie};
use super::stage::{Openings, Stage, Work};

pub fn roots(states: &States) -> (Digest, Digest) {
    state_roots(&states.values().copied().collect::<Vec<_>>())
}

fn own(kind: PortKind, digest: Digest) -> ClaimInput {
    ClaimInput {
        port: Port { kind, digest },
        origin: None,
    }
}

struct Writer<'a> {
    stage: &'a Stage,
    work: &'a Work,
    lie: Option<Lie>,
}

impl Writer<'_> {
    fn lies(&self, kind: Kind) -> bool {
        self.lie.is_some_and(|lie| lie.kind == kind)
    }

    fn leaf(&self, phase: LeafPhase, microbatch: u32, inputs: Vec<ClaimInput>) -> Leaf {
        let made = self.work.made.get(&(phase, microbatch));
        Leaf {
            phase,
            microbatch,
            layers: self.stage.layers,
            inputs,
            outputs: made.cloned().unwrap_or_default(),
        }
    }

    fn received(&self, kind: PortKind, m: u32) -> ClaimInput {
        let frame = &self.work.inbox[&(kind, m)];
        let mut port = frame.port;
        if self.lies(Kind::OtherInput) {
            port.digest = fake::mix("never sent", &[port.digest]);
        }
        ClaimInput {
            port,
            origin: Some(frame.origin.clone()),
        }
    }

    fn common(&self, m: u32) -> Vec<ClaimInput> {
        let mut values = roots(&self.stage.states).0;
        if self.lies(Kind::StaleState) {
            values = fake::mix("stale", &[values]);
        }
        let mut inputs = vec![own(PortKind::State, values)];
        let (stage, last) = (
            self.stage.slot.stage,
            self.stage.assignment.plan.stages.len() - 1,
        );
        if stage == 0 || stage == last {
            let mut tokens = self.work.tokens[&m];
            if self.lies(Kind::WrongTokens) {
                tokens = fake::mix("other tokens", &[tokens]);
            }
            inputs.push(own(PortKind::Tokens, tokens));
        }
        if stage > 0 {
            inputs.push(self.received(PortKind::Activation(self.stage.layers.start), m));
        }
        inputs
    }

    fn forward(&self, m: u32) -> Leaf {
        let mut leaf = self.leaf(LeafPhase::Forward, m, self.common(m));
        if self.lies(Kind::OtherActivation) {
            let digest = leaf.outputs[0].digest;
            leaf.outputs[0].digest = fake::mix("other", &[digest]);
        }
        leaf
    }

    fn backward(&self, m: u32) -> Leaf {
        let mut inputs = self.common(m);
        let (stage, last) = (
            self.stage.slot.stage,
            self.stage.assignment.plan.stages.len() - 1,
        );
        if stage < last {
            inputs.push(self.received(PortKind::Gradient(self.stage.layers.end), m));
        }
        self.leaf(LeafPhase::Backward, m, inputs)
    }

    fn reduce(&self, node: Node) -> Leaf {
        let mut inputs = Vec::new();
        for part in parts(&self.stage.spec, self.stage.layers) {
            for m in node.start..node.end {
                let node = Node::leaf(m);
                let kind = PortKind::Partial { node, part };
                inputs.push(own(kind, fake::root(&self.work.sums[&part][&node])));
            }
        }
        self.leaf(LeafPhase::Reduce, node.start, inputs)
    }

    fn update(&self, scalars: &Scalars, after: &States) -> Leaf {
        let (values, moments) = roots(&self.stage.states);
        let mut inputs = vec![
            own(PortKind::State, values),
            own(PortKind::Moments, moments),
            own(PortKind::Scalars, scalars.digest()),
        ];
        inputs.extend(self.step_sums());
        let (values, moments) = roots(after);
        let mut leaf = self.leaf(LeafPhase::Update, 0, inputs);
        leaf.outputs = vec![
            own(PortKind::State, values).port,
            own(PortKind::Moments, moments).port,
        ];
        leaf
    }

    /// The partial sums of all workers.
    fn step_sums(&self) -> Vec<ClaimInput> {
        let mut inputs = Vec::new();
        let plan = &self.stage.assignment.plan;
        let held = parts(&self.stage.spec, self.stage.layers);
        let mut wanted: Vec<GradientPart> = held
            .iter()
            .copied()
            .filter(|p| *p == GradientPart::Own)
            .collect();
        if held.len() > wanted.len() {
            wanted.extend([GradientPart::TiedEmbed, GradientPart::TiedHead]);
        }
        for part in wanted {
            let at = match part {
                GradientPart::Own => self.stage.slot.stage,
                GradientPart::TiedEmbed => 0,
                GradientPart::TiedHead => plan.stages.len() - 1,
            };
            for (replica, run) in plan.replicas.iter().enumerate() {
                let is_own = replica == self.stage.slot.replica && at == self.stage.slot.stage;
                for node in tree::cover(self.stage.spec.microbatches, run.start, run.end) {
                    let kind = PortKind::Partial { node, part };
                    inputs.push(if is_own {
                        let made = &self.work.made[&(LeafPhase::Reduce, node.start)];
                        let port = made.iter().find(|port| port.kind == kind);
                        own(kind, port.expect("a sum of its own").digest)
                    } else {
                        self.received(kind, node.start)
                    });
                }
            }
        }
        inputs
    }
}

/// The first half of the claim of a step.
pub fn first_half(
    key: &Keypair,
    stage: &Stage,
    work: &Work,
    lie: Option<Lie>,
) -> (Signed, Vec<Leaf>) {
    let writer = Writer { stage, work, lie };
    let plan = &stage.assignment.plan;
    let run = stage.run(work.step);
    let mut leaves: Vec<Leaf> = run.clone().map(|m| writer.forward(m)).collect();
    if !stage.evaluates(work.step) {
        leaves.extend(run.clone().map(|m| writer.backward(m)));
        let nodes = tree::cover(stage.spec.microbatches, run.start, run.end);
        leaves.extend(nodes.into_iter().map(|node| writer.reduce(node)));
        leaves.push(writer.leaf(LeafPhase::Norm, 0, writer.step_sums()));
    }
    if writer.lies(Kind::MissingLeaf) {
        leaves.remove(0);
    }
    let half = FirstHalf {
        job: stage.job,
        attempt: match writer.lies(Kind::OtherHistory) {
            true => AttemptId {
                entry: Digest::default(),
                ..work.attempt
            },
            false => work.attempt,
        },
        previous: work.previous,
        step: work.step,
        epoch: plan.epoch,
        plan: plan.digest(),
        arithmetic: stage.spec.arithmetic,
        leaf_root: leaf_root(&leaves),
    };
    (Signed::new(key, &half), leaves)
}

pub fn updated(
    key: &Keypair,
    stage: &Stage,
    work: &Work,
    scalars: &Scalars,
    lie: Option<Lie>,
) -> ToCoordinator {
    let writer = Writer { stage, work, lie };
    let plan = &stage.assignment.plan;
    let after = work.after.as_ref().expect("computed before");
    let first = work.first_half.as_ref().expect("reported before");
    let leaves = match stage.evaluates(work.step) {
        true => Vec::new(),
        false => vec![writer.update(scalars, after)],
    };
    let state = |(&tensor, &entry): (&u32, _)| TensorState { tensor, entry };
    let claim = Claim {
        job: stage.job,
        step: work.step,
        epoch: plan.epoch,
        first_half: first_half_digest(&first.signed),
        device: "make-believe".to_string(),
        leaf_root: leaf_root(&leaves),
        state: after.iter().map(state).collect(),
    };
    let mut claim = Signed::new(key, &claim);
    if writer.lies(Kind::ForgedClaim) {
        claim.signature[5] ^= 1;
    }
    ToCoordinator::Updated { claim, leaves }
}

/// The gradients of the whole step.
fn totals(openings: &Openings) -> PerTensor {
    let whole = Node {
        start: 0,
        end: openings.spec.microbatches,
    };
    let sums: BTreeMap<GradientPart, PerTensor> = openings
        .sums
        .iter()
        .filter_map(|(part, known)| Some((*part, fake::sum(whole, known)?)))
        .collect();
    fake::totals(&sums)
}

/// Their squared norms.
pub fn norms(spec: &JobSpec, totals: &PerTensor) -> Vec<TensorNorm> {
    let norm = |(&tensor, gradient): (&u32, &Digest)| TensorNorm {
        tensor,
        squared: fake::norm(spec, gradient),
    };
    totals.iter().map(norm).collect()
}

/// What a leaf's outputs should be, from what its worker opens.
pub fn rerun(leaf: &Leaf, openings: &Openings) -> Vec<Port> {
    let (spec, layers, m) = (&openings.spec, leaf.layers, leaf.microbatch);
    let input = |kind| leaf.input(kind).map(|input| input.port.digest);
    let tokens = openings.tokens.get(&m).copied().unwrap_or_default();
    let inputs = Inputs {
        tokens,
        activation: input(PortKind::Activation(layers.start)).filter(|_| layers.start != 0),
    };
    let port = |kind, digest| Port { kind, digest };
    match leaf.phase {
        LeafPhase::Forward => {
            let (top, loss) = fake::forward(spec, layers, &openings.before, inputs);
            let activation = port(PortKind::Activation(layers.end), top);
            vec![loss.map_or(activation, |sum| port(PortKind::Loss, loss_digest(sum)))]
        }
        LeafPhase::Backward => {
            let gradient = input(PortKind::Gradient(layers.end));
            let before = &openings.before;
            let (below, mut found) = fake::backward(spec, layers, before, inputs, gradient);
            let node = Node::leaf(m);
            let mut ports = Vec::new();
            for part in parts(spec, layers) {
                let sum = found.remove(&part).unwrap_or_default();
                ports.push(port(PortKind::Partial { node, part }, fake::root(&sum)));
            }
            if layers.start != 0 {
                ports.push(port(PortKind::Gradient(layers.start), below));
            }
            ports
        }
        LeafPhase::Reduce => leaf
            .outputs
            .iter()
            .map(|output| {
                let PortKind::Partial { node, part } = output.kind else {
                    return *output;
                };
                let mut leaves = openings.sums[&part].clone();
                leaves.retain(|node, _| node.len() == 1);
                let sum = fake::sum(node, &leaves).expect("all of the run is open");
                port(output.kind, fake::root(&sum))
            })
            .collect(),
        LeafPhase::Norm => {
            let norms = norms(spec, &totals(openings));
            vec![port(PortKind::Norms, norms_digest(&norms))]
        }
        LeafPhase::Update => {
            let after = fake::update(&openings.before, &totals(openings), openings.numbers);
            let (values, moments) = roots(&after);
            vec![
                port(PortKind::State, values),
                port(PortKind::Moments, moments),
            ]
        }
    }
}

/// The addresses of what a leaf is computed from, as its worker opens it.
pub fn inputs(leaf: &Leaf, openings: &Openings) -> Vec<Vec<Digest>> {
    let states = openings.before.values();
    let opened = leaf.inputs.iter().map(|input| match input.port.kind {
        PortKind::State => states.clone().map(|entry| entry.value).collect(),
        PortKind::Moments => {
            let pair = |entry: &StateEntry| [entry.first_moment, entry.second_moment];
            states.clone().flat_map(pair).collect()
        }
        PortKind::Partial { node, part } => {
            let sum = openings.sums.get(&part).and_then(|sums| sums.get(&node));
            sum.into_iter()
                .flat_map(|sum| sum.values().copied())
                .collect()
        }
        PortKind::Tokens | PortKind::Loss | PortKind::Norms => Vec::new(),
        PortKind::Activation(_) | PortKind::Gradient(_) | PortKind::Scalars => {
            vec![input.port.digest]
        }
    });
    opened.collect()
}

/// What stands for knowing how a leaf was computed.
pub fn trace(checker: &WorkerId, computed: &[Port]) -> Digest {
    let key = Digest(checker.0);
    let digests = computed.iter().map(|port| port.digest);
    let all: Vec<Digest> = [key].into_iter().chain(digests).collect();
    fake::mix("trace", &all)
}
