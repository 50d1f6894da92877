//! The work of a step, leaf by leaf: what is computed, sent and reported.

use super::*;

fn inputs(stage: &Stage, work: &Work, m: u32) -> Option<Inputs> {
    let kind = PortKind::Activation(stage.layers.start);
    let activation = work.inbox.get(&(kind, m)).map(|frame| frame.port.digest);
    let is_here = stage.slot.stage == 0 || activation.is_some();
    is_here.then(|| Inputs {
        tokens: work.tokens[&m],
        activation,
    })
}

fn push(
    stage: &Stage,
    work: &Work,
    key: &Keypair,
    to: WorkerId,
    (microbatch, port, sum): (u32, Port, PerTensor),
) -> Act {
    let plan = &stage.assignment.plan;
    let message = Origin::message(&stage.job, &work.attempt, microbatch, &port);
    Act::Push(Frame {
        to,
        job: stage.job,
        attempt: work.attempt,
        epoch: plan.epoch,
        step: work.step,
        microbatch,
        port,
        origin: Origin::sign(key, &message),
        sum,
    })
}

pub(super) fn forward_one(
    stage: &Stage,
    work: &mut Work,
    m: u32,
    lie: Option<Lie>,
    key: &Keypair,
    acts: &mut Vec<Act>,
) {
    let Some(inputs) = inputs(stage, work, m) else {
        return;
    };
    if work.made.contains_key(&(LeafPhase::Forward, m)) {
        return;
    }
    let (mut top, mut loss) = fake::forward(&stage.spec, stage.layers, &stage.states, inputs);
    if lie.is_some_and(|lie| lie.wrong_forward()) {
        top = fake::mix("wrong", &[top]);
        loss = loss.map(|_| fake::number(&top));
    }
    let port = match loss {
        Some(sum) => {
            work.losses.push(MicrobatchLoss { microbatch: m, sum });
            Port {
                kind: PortKind::Loss,
                digest: concord_verify::training::loss_digest(sum),
            }
        }
        None => Port {
            kind: PortKind::Activation(stage.layers.end),
            digest: top,
        },
    };
    work.made.insert((LeafPhase::Forward, m), vec![port]);
    let replica = &stage.assignment.plan.replicas[stage.slot.replica];
    if loss.is_none() {
        let to = replica.workers[stage.slot.stage + 1];
        acts.push(push(stage, work, key, to, (m, port, PerTensor::new())));
    }
}

pub(super) fn backward_one(
    stage: &Stage,
    work: &mut Work,
    m: u32,
    lie: Option<Lie>,
    key: &Keypair,
    acts: &mut Vec<Act>,
) {
    let is_last = stage.layers.end == stage.spec.layers;
    let kind = PortKind::Gradient(stage.layers.end);
    let gradient = work.inbox.get(&(kind, m)).map(|frame| frame.port.digest);
    let is_ready = is_last || gradient.is_some();
    let is_done = work.made.contains_key(&(LeafPhase::Backward, m));
    let Some(inputs) = inputs(stage, work, m).filter(|_| is_ready && !is_done) else {
        return;
    };
    let (below, mut found) =
        fake::backward(&stage.spec, stage.layers, &stage.states, inputs, gradient);
    if lie.is_some_and(|lie| lie.wrong_backward()) {
        for sum in found.values_mut() {
            sum.values_mut()
                .for_each(|d| *d = fake::mix("wrong", &[*d]));
        }
    }
    let node = Node::leaf(m);
    let mut ports = Vec::new();
    for part in parts(&stage.spec, stage.layers) {
        let sum = found.remove(&part).unwrap_or_default();
        let digest = fake::root(&sum);
        let kind = PortKind::Partial { node, part };
        ports.push(Port { kind, digest });
        work.sums.entry(part).or_default().insert(node, sum);
    }
    if stage.slot.stage > 0 {
        let kind = PortKind::Gradient(stage.layers.start);
        let port = Port {
            kind,
            digest: below,
        };
        ports.push(port);
        let to = stage.assignment.plan.replicas[stage.slot.replica].workers[stage.slot.stage - 1];
        acts.push(push(stage, work, key, to, (m, port, PerTensor::new())));
    }
    work.made.insert((LeafPhase::Backward, m), ports);
}

/// The sums over the nodes of the run, to all who update the same tensors.
pub(super) fn reduce(
    stage: &Stage,
    work: &mut Work,
    lie: Option<Lie>,
    key: &Keypair,
    acts: &mut Vec<Act>,
) {
    let plan = &stage.assignment.plan;
    let run = &plan.replicas[stage.slot.replica];
    let last = plan.stages.len() - 1;
    for node in tree::cover(stage.spec.microbatches, run.start, run.end) {
        let mut ports = Vec::new();
        for part in parts(&stage.spec, stage.layers) {
            let sum = fake::sum(node, &work.sums[&part]).expect("all of the run is here");
            let digest = fake::root(&sum);
            let kind = PortKind::Partial { node, part };
            let port = Port { kind, digest };
            ports.push(port);
            for (slot, to) in plan.workers() {
                let wanted = match part {
                    GradientPart::Own => slot.stage == stage.slot.stage,
                    GradientPart::TiedEmbed | GradientPart::TiedHead => {
                        slot.stage == 0 || slot.stage == last
                    }
                };
                if wanted && slot != stage.slot {
                    acts.push(push(stage, work, key, to, (node.start, port, sum.clone())));
                }
            }
            work.sums.entry(part).or_default().insert(node, sum);
        }
        if lie.is_some_and(|lie| lie.claims_other_sum()) && node.start == run.start {
            ports[0].digest = fake::mix("other", &[ports[0].digest]);
        }
        work.made.insert((LeafPhase::Reduce, node.start), ports);
    }
}

/// Signs the first half of the claim, once all sums are here. Says whether they are.
pub(super) fn report(stage: &Stage, work: &mut Work, lie: Option<Lie>, key: &Keypair) -> bool {
    let whole = Node {
        start: 0,
        end: stage.spec.microbatches,
    };
    let mut held = match stage.evaluates(work.step) {
        true => Vec::new(),
        false => parts(&stage.spec, stage.layers),
    };
    if held.iter().any(|part| *part != GradientPart::Own) {
        held.retain(|part| *part == GradientPart::Own);
        held.extend([GradientPart::TiedEmbed, GradientPart::TiedHead]);
    }
    let mut sums: BTreeMap<GradientPart, PerTensor> = BTreeMap::new();
    for part in held {
        let known = work.sums.get(&part);
        let Some(sum) = known.and_then(|known| fake::sum(whole, known)) else {
            return false;
        };
        sums.insert(part, sum);
    }
    let totals = fake::totals(&sums);
    let mut norms = claims::norms(&stage.spec, &totals);
    if let (Some(squared), Some(first)) = (lie.and_then(Lie::norm), norms.first_mut()) {
        first.squared = squared.into();
    }
    if !stage.evaluates(work.step) {
        let port = Port {
            kind: PortKind::Norms,
            digest: norms_digest(&norms),
        };
        work.made.insert((LeafPhase::Norm, 0), vec![port]);
    }
    work.losses.sort_by_key(|loss| loss.microbatch);
    let (signed, leaves) = claims::first_half(key, stage, work, lie);
    let values = StepValues {
        losses: work.losses.clone(),
        norms,
    };
    work.totals = Some(totals);
    work.first_half = Some(FirstReport {
        signed,
        leaves,
        values,
    });
    true
}
