//! Make-believe arithmetic: digests of digests, with the shape of the real thing. Its results do
//! not depend on who computes what, and any change of an input changes every output after it.

use std::collections::BTreeMap;

use concord_proto::manifest::StateEntry;
use concord_proto::session::Scalars;
use concord_proto::tree::Node;
use concord_proto::{Digest, Domain, F32Bits, GradientPart, JobSpec, Layers, ModelPlace, merkle};

/// Digests by index of the trained tensor.
pub type PerTensor = BTreeMap<u32, Digest>;
/// States by index of the trained tensor.
pub type States = BTreeMap<u32, StateEntry>;

pub fn mix(what: &str, parts: &[Digest]) -> Digest {
    Digest::of_value(Domain::Blob, &(what.to_string(), parts.to_vec()))
}

pub fn number(digest: &Digest) -> F32Bits {
    let [a, b, ..] = digest.0;
    F32Bits::from(1.0 + f32::from(u16::from_le_bytes([a, b])) / 65_536.0)
}

/// The squared norm of a gradient. A job with a huge learning rate diverges at once.
pub fn norm(spec: &JobSpec, gradient: &Digest) -> F32Bits {
    match spec.schedule.learning_rate.get() > 1e6 {
        true => F32Bits::from(f32::INFINITY),
        false => number(gradient),
    }
}

/// What an update takes of the scalars: the numbers, and not who claimed them.
pub fn numbers(scalars: &Scalars) -> Digest {
    let Scalars {
        step,
        losses,
        norms,
        targets,
        ..
    } = scalars;
    Digest::of_value(Domain::Blob, &(*step, losses, norms, *targets))
}

fn at(spec: &JobSpec, states: &States, test: impl Fn(ModelPlace) -> bool) -> Vec<(u32, Digest)> {
    let held = |(index, entry): (&u32, &StateEntry)| {
        let place = spec.trainable[*index as usize].place;
        test(place).then_some((*index, entry.value))
    };
    states.iter().filter_map(held).collect()
}

fn digests(tensors: &[(u32, Digest)]) -> Vec<Digest> {
    tensors.iter().map(|(_, digest)| *digest).collect()
}

fn is_embed(place: ModelPlace) -> bool {
    matches!(place, ModelPlace::Embed | ModelPlace::EmbedAndHead)
}

fn is_head(place: ModelPlace) -> bool {
    matches!(place, ModelPlace::Head | ModelPlace::EmbedAndHead)
}

/// What goes into a stage: the activation at its lower edge, and the tokens at either end.
#[derive(Clone, Copy)]
pub struct Inputs {
    pub tokens: Digest,
    pub activation: Option<Digest>,
}

/// Activations at the edges of the layers of a stage, from the lower to the upper.
fn edges(spec: &JobSpec, layers: Layers, states: &States, inputs: Inputs) -> Vec<Digest> {
    let embed = || {
        let values = digests(&at(spec, states, is_embed));
        mix("embed", &[&[inputs.tokens], &values[..]].concat())
    };
    let mut edges = vec![inputs.activation.unwrap_or_else(embed)];
    for layer in layers.touched() {
        let values = digests(&at(spec, states, |place| place == ModelPlace::Layer(layer)));
        let below = edges[edges.len() - 1];
        edges.push(mix("forward", &[&[below], &values[..]].concat()));
    }
    edges
}

fn loss_of(spec: &JobSpec, states: &States, top: Digest, tokens: Digest) -> Digest {
    let values = digests(&at(spec, states, is_head));
    mix("loss", &[&[top, tokens], &values[..]].concat())
}

/// The activation at the upper edge, and the loss where that is the last layer's.
pub fn forward(
    spec: &JobSpec,
    layers: Layers,
    states: &States,
    inputs: Inputs,
) -> (Digest, Option<F32Bits>) {
    let edges = edges(spec, layers, states, inputs);
    let top = edges[edges.len() - 1];
    let is_last = layers.end == spec.layers;
    let loss = is_last.then(|| number(&loss_of(spec, states, top, inputs.tokens)));
    (top, loss)
}

/// The gradient at the lower edge, and the gradients of the tensors by part.
pub fn backward(
    spec: &JobSpec,
    layers: Layers,
    states: &States,
    inputs: Inputs,
    gradient: Option<Digest>,
) -> (Digest, BTreeMap<GradientPart, PerTensor>) {
    let edges = edges(spec, layers, states, inputs);
    let mut parts: BTreeMap<GradientPart, PerTensor> = BTreeMap::new();
    let mut add = |tied: GradientPart, index: u32, digest| {
        let is_tied = spec.trainable[index as usize].place == ModelPlace::EmbedAndHead;
        let part = if is_tied { tied } else { GradientPart::Own };
        parts.entry(part).or_default().insert(index, digest);
    };
    let top = edges[edges.len() - 1];
    let loss = loss_of(spec, states, top, inputs.tokens);
    let mut above = gradient.unwrap_or(loss);
    if layers.end == spec.layers {
        for (index, _) in at(spec, states, is_head) {
            add(GradientPart::TiedHead, index, mix("head", &[top, loss]));
        }
    }
    for (layer, below) in layers.touched().zip(&edges).rev() {
        let tensors = at(spec, states, |place| place == ModelPlace::Layer(layer));
        for (index, _) in &tensors {
            let name = mix(&spec.trainable[*index as usize].name, &[]);
            add(
                GradientPart::Own,
                *index,
                mix("weight", &[name, *below, above]),
            );
        }
        above = mix(
            "backward",
            &[&[above, *below], &digests(&tensors)[..]].concat(),
        );
    }
    if layers.start == 0 {
        for (index, _) in at(spec, states, is_embed) {
            add(
                GradientPart::TiedEmbed,
                index,
                mix("embedding", &[above, inputs.tokens]),
            );
        }
    }
    (above, parts)
}

/// The sum over a node, from sums over nodes below it.
pub fn sum(node: Node, known: &BTreeMap<Node, PerTensor>) -> Option<PerTensor> {
    if let Some(sum) = known.get(&node) {
        return Some(sum.clone());
    }
    let (left, right) = node.children()?;
    let (left, right) = (sum_of(left, known)?, sum_of(right, known)?);
    let add = |(index, digest): (&u32, &Digest)| (*index, mix("+", &[*digest, right[index]]));
    Some(left.iter().map(add).collect())
}

fn sum_of(node: Node, known: &BTreeMap<Node, PerTensor>) -> Option<PerTensor> {
    sum(node, known)
}

pub fn root(sum: &PerTensor) -> Digest {
    merkle::root(&sum.values().copied().collect::<Vec<_>>())
}

/// The gradients of the whole step: those of a tied tensor from both ends.
pub fn totals(parts: &BTreeMap<GradientPart, PerTensor>) -> PerTensor {
    let of = |part| parts.get(&part).cloned().unwrap_or_default();
    let mut totals = of(GradientPart::Own);
    let head = of(GradientPart::TiedHead);
    for (index, digest) in of(GradientPart::TiedEmbed) {
        totals.insert(index, mix("tied", &[digest, head[&index]]));
    }
    totals
}

/// The state after the step.
pub fn update(states: &States, totals: &PerTensor, numbers: Digest) -> States {
    let next = |(index, entry): (&u32, &StateEntry)| {
        let gradient = totals[index];
        let entry = StateEntry {
            value: mix("value", &[entry.value, gradient, numbers]),
            first_moment: mix("first", &[entry.first_moment, gradient]),
            second_moment: mix("second", &[entry.second_moment, gradient]),
        };
        (*index, entry)
    };
    states.iter().map(next).collect()
}
