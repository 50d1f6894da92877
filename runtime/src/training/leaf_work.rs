//! The work of a leaf: what the worker does and what the checker does again.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::{Device, KernelError, Tensor};
use concord_models::decoder::{Batch, Gradients, Keeps, Stage, StageInput, StageTape, TensorUse};
use concord_models::train::{StepScalars, TensorRule, TrainState};
use concord_proto::manifest::StateEntry;
use concord_proto::session::Scalars;
use concord_proto::tree::Node;
use concord_proto::{
    Digest, F32Bits, GradientPart, JobSpec, Layers, ModelPlace, Port, PortKind, TensorNorm,
    TensorState, merkle,
};
use concord_verify::training::{held_tensors, loss_digest, norms_digest};

use crate::{RuntimeError, moment_blob, spec, tensor_blob};

/// The gradients of one part, summed over a node: in the order of the tensors' names.
#[derive(Debug)]
pub(crate) struct PartSum {
    pub(crate) tensors: Vec<Arc<Tensor>>,
    pub(crate) digests: Vec<Digest>,
}

impl PartSum {
    pub(crate) fn new(tensors: Vec<Arc<Tensor>>) -> Result<Self, KernelError> {
        let digests = tensors
            .iter()
            .map(|tensor| tensor_blob::digest(tensor))
            .collect::<Result<_, _>>()?;
        Ok(Self { tensors, digests })
    }

    pub(crate) fn root(&self) -> Digest {
        merkle::root(&self.digests)
    }

    pub(crate) fn port(&self, node: Node, part: GradientPart) -> Port {
        Port {
            kind: PortKind::Partial { node, part },
            digest: self.root(),
        }
    }
}

/// The tensors of a partial sum, unless a GPU failed.
pub(crate) type Sum = Result<Vec<Arc<Tensor>>, KernelError>;

/// A microbatch that went through a stage.
pub(crate) struct Forwarded {
    tape: StageTape,
    end: ForwardEnd,
    pub(crate) output: Port,
}

enum ForwardEnd {
    Hidden(Arc<Tensor>),
    /// Of an evaluation: nothing goes back.
    LossAlone(f32),
    Loss {
        sum: f32,
        d_hidden: Tensor,
        gradients: Gradients,
    },
}

impl Forwarded {
    /// The hidden states for the next stage.
    pub(crate) fn hidden(&self) -> Option<Arc<Tensor>> {
        match &self.end {
            ForwardEnd::Hidden(hidden) => Some(hidden.clone()),
            ForwardEnd::Loss { .. } | ForwardEnd::LossAlone(_) => None,
        }
    }

    /// What was met on the way: what enters each layer, and what leaves the last one or goes back
    /// from the loss.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let last = match &self.end {
            ForwardEnd::Hidden(hidden) => Some(&**hidden),
            ForwardEnd::Loss { d_hidden, .. } => Some(d_hidden),
            ForwardEnd::LossAlone(_) => None,
        };
        self.tape.inputs().chain(last)
    }

    /// The loss of the microbatch, on the last stage.
    pub(crate) fn loss(&self) -> Option<f32> {
        match &self.end {
            ForwardEnd::Loss { sum, .. } | ForwardEnd::LossAlone(sum) => Some(*sum),
            ForwardEnd::Hidden(_) => None,
        }
    }
}

/// What a microbatch is sent forward for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To come back; what is held until then.
    Update(Keeps),
    /// For its loss alone.
    Evaluation,
}

/// Sends a microbatch through the stage of `layers`; through the loss, too, on the last one.
pub(crate) fn forward(
    stage: &Stage,
    layers: Layers,
    batch: &Batch,
    input: Option<&Tensor>,
    purpose: Purpose,
) -> Result<Forwarded, RuntimeError> {
    let keeps = match purpose {
        Purpose::Update(keeps) => keeps,
        Purpose::Evaluation => Keeps::Inputs,
    };
    let input = input.map_or(StageInput::Tokens, |hidden| {
        StageInput::Hidden(hidden.clone())
    });
    let (hidden, tape) = stage.forward_keeping(batch, input, keeps)?;
    if !stage.is_last() {
        let kind = PortKind::Activation(layers.end);
        let output = Port {
            kind,
            digest: tensor_blob::digest(&hidden)?,
        };
        return Ok(Forwarded {
            tape,
            end: ForwardEnd::Hidden(Arc::new(hidden)),
            output,
        });
    }
    let (sum, end) = match purpose {
        Purpose::Evaluation => {
            let sum = stage.loss_alone(batch, &hidden)?;
            (sum, ForwardEnd::LossAlone(sum))
        }
        Purpose::Update(_) => {
            let mut gradients = Gradients::default();
            let loss = stage.loss(batch, &hidden, &mut gradients)?;
            let (sum, d_hidden) = (loss.sum, loss.d_hidden);
            let end = ForwardEnd::Loss {
                sum,
                d_hidden,
                gradients,
            };
            (sum, end)
        }
    };
    let digest = loss_digest(F32Bits::from(sum));
    Ok(Forwarded {
        tape,
        end,
        output: Port {
            kind: PortKind::Loss,
            digest,
        },
    })
}

/// What the backward pass of a microbatch gives.
pub(crate) struct Backwarded {
    pub(crate) sums: BTreeMap<GradientPart, PartSum>,
    pub(crate) d_input: Option<Arc<Tensor>>,
    pub(crate) outputs: Vec<Port>,
}

impl Backwarded {
    /// The gradients.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let sums = self.sums.values().flat_map(|sum| &sum.tensors);
        sums.chain(&self.d_input).map(|tensor| &**tensor)
    }
}

/// Sends gradients back; `gradient` is that of the stage's output, except on the last stage.
pub(crate) fn backward(
    spec: &JobSpec,
    stage: &Stage,
    layers: Layers,
    microbatch: u32,
    batch: &Batch,
    forwarded: Forwarded,
    gradient: Option<&Tensor>,
) -> Result<Backwarded, RuntimeError> {
    let (d_output, mut gradients) = match (forwarded.end, gradient) {
        (
            ForwardEnd::Loss {
                d_hidden,
                gradients,
                ..
            },
            _,
        ) => (d_hidden, gradients),
        (ForwardEnd::Hidden(_), Some(gradient)) => (gradient.clone(), Gradients::default()),
        (ForwardEnd::Hidden(_) | ForwardEnd::LossAlone(_), _) => {
            return Err(RuntimeError::Unsupported("a gradient is missing".into()));
        }
    };
    let d_input = stage.backward(batch, &forwarded.tape, d_output, &mut gradients)?;
    let sums = split(spec, layers, gradients)?;
    let node = Node::leaf(microbatch);
    let mut outputs: Vec<Port> = sums
        .iter()
        .map(|(part, sum)| sum.port(node, *part))
        .collect();
    let d_input = d_input.map(Arc::new);
    if let Some(d_input) = &d_input {
        let kind = PortKind::Gradient(layers.start);
        outputs.push(Port {
            kind,
            digest: tensor_blob::digest(d_input)?,
        });
    }
    Ok(Backwarded {
        sums,
        d_input,
        outputs,
    })
}

fn split(
    spec: &JobSpec,
    layers: Layers,
    mut gradients: Gradients,
) -> Result<BTreeMap<GradientPart, PartSum>, KernelError> {
    let end = |part| match part {
        GradientPart::Own => TensorUse::Own,
        GradientPart::TiedEmbed => TensorUse::TiedEmbed,
        GradientPart::TiedHead => TensorUse::TiedHead,
    };
    let mut take = |part| {
        let mut tensors = Vec::new();
        gradients.0.retain(|key, tensor| {
            let taken = key.end == end(part);
            if taken {
                tensors.push(Arc::new(std::mem::replace(tensor, Tensor::zeros(&[0]))));
            }
            !taken
        });
        Ok((part, PartSum::new(tensors)?))
    };
    concord_verify::training::parts(spec, layers)
        .into_iter()
        .map(&mut take)
        .collect()
}

/// Adds partial sums along the tree below `node`: `leaf(m)` is the sum of one microbatch.
pub(crate) fn reduce<'a>(
    device: &Device,
    node: Node,
    leaf: &impl Fn(u32) -> &'a [Arc<Tensor>],
) -> Sum {
    match node.children() {
        None => Ok(leaf(node.start).to_vec()),
        Some((left, right)) => {
            let mut sum = reduce(device, left, leaf)?;
            add(device, &mut sum, reduce(device, right, leaf)?)?;
            Ok(sum)
        }
    }
}

/// `sum += other`, tensor by tensor.
pub(crate) fn add(
    device: &Device,
    sum: &mut [Arc<Tensor>],
    other: Vec<Arc<Tensor>>,
) -> Result<(), KernelError> {
    let _gradients = device.account(MemoryPurpose::Gradients);
    let mut pairs = sum.iter_mut().zip(other);
    pairs.try_for_each(|(sum, other)| device.add_assign(Arc::make_mut(sum), &other))
}

/// `sum += other`, unless either has failed.
pub(crate) fn add_sums(device: &Device, sum: &mut Sum, other: Sum) {
    let Ok(held) = sum else { return };
    if let Err(error) = other.and_then(|other| add(device, held, other)) {
        *sum = Err(error);
    }
}

/// Names of the tensors that a stage trains, with their indices in the spec.
pub(crate) fn held_names(spec: &JobSpec, layers: Layers) -> Vec<(u32, String)> {
    let name = |index: u32| (index, spec.trainable[index as usize].name.clone());
    held_tensors(spec, layers).into_iter().map(name).collect()
}

/// The gradient of the step for each tensor of a stage, by name: from the totals of its parts.
pub(crate) fn step_gradients(
    spec: &JobSpec,
    layers: Layers,
    device: &Device,
    totals: BTreeMap<GradientPart, Vec<Arc<Tensor>>>,
) -> Result<BTreeMap<String, Arc<Tensor>>, KernelError> {
    let is_tied = |index: u32| spec.trainable[index as usize].place == ModelPlace::EmbedAndHead;
    let (tied, own): (Vec<_>, Vec<_>) = held_names(spec, layers)
        .into_iter()
        .partition(|(index, _)| is_tied(*index));
    let mut gradients = BTreeMap::new();
    for (part, tensors) in totals {
        let names = if part == GradientPart::Own {
            &own
        } else {
            &tied
        };
        for ((_, name), tensor) in names.iter().zip(tensors) {
            match gradients.get_mut(name) {
                None => {
                    gradients.insert(name.clone(), tensor);
                }
                Some(sum) => add(device, std::slice::from_mut(sum), vec![tensor])?,
            }
        }
    }
    Ok(gradients)
}

/// Squared norms of the gradients of a stage, by rising index.
pub(crate) fn norms(
    spec: &JobSpec,
    layers: Layers,
    device: &Device,
    gradients: &BTreeMap<String, Arc<Tensor>>,
) -> Result<Vec<TensorNorm>, KernelError> {
    let held = held_names(spec, layers);
    let tensors: Vec<&Tensor> = held.iter().map(|(_, name)| &*gradients[name]).collect();
    let squares = device.sum_squares(&tensors)?;
    let norm = |((tensor, _), squared): (&(u32, String), f32)| TensorNorm {
        tensor: *tensor,
        squared: F32Bits::from(squared),
    };
    Ok(held.iter().zip(squares).map(norm).collect())
}

/// The output of a Norm leaf.
pub(crate) fn norms_port(norms: &[TensorNorm]) -> Port {
    Port {
        kind: PortKind::Norms,
        digest: norms_digest(norms),
    }
}

/// The update of a step.
pub(crate) struct Updated {
    pub(crate) state: TrainState,
    pub(crate) entries: Vec<TensorState>,
}

impl Updated {
    /// The outputs of the update leaf.
    pub(crate) fn outputs(&self) -> Vec<Port> {
        state_ports(
            &self
                .entries
                .iter()
                .map(|state| state.entry)
                .collect::<Vec<_>>(),
        )
    }
}

/// What an evaluation leaves: the state as it was.
pub(crate) fn evaluated(state: &TrainState, entries: &[TensorState]) -> Updated {
    Updated {
        state: state.clone(),
        entries: entries.to_vec(),
    }
}

/// The ports that stand for a stage's state.
pub(crate) fn state_ports(entries: &[StateEntry]) -> Vec<Port> {
    let (values, moments) = concord_proto::manifest::state_roots(entries);
    vec![
        Port {
            kind: PortKind::State,
            digest: values,
        },
        Port {
            kind: PortKind::Moments,
            digest: moments,
        },
    ]
}

/// One step of the optimizer over a stage.
pub(crate) fn update(
    spec: &JobSpec,
    layers: Layers,
    device: &Device,
    state: &TrainState,
    gradients: &BTreeMap<String, Arc<Tensor>>,
    scalars: &Scalars,
) -> Result<Updated, RuntimeError> {
    let lacking = || RuntimeError::Unsupported("the step has no norms".into());
    let step_scalars = StepScalars {
        step: spec.updates_before(scalars.step),
        targets: scalars.targets,
        grad_norm: scalars.grad_norm().ok_or_else(lacking)?.get(),
        learning_rate: spec.learning_rate(scalars.step).get(),
    };
    let rules = spec.trainable.iter().map(|tensor| {
        let rate = spec.own_learning_rate(scalars.step, tensor);
        let rule = TensorRule {
            decays: tensor.decays,
            learning_rate: rate.map(F32Bits::get),
        };
        (tensor.name.as_str(), rule)
    });
    let rules: BTreeMap<&str, TensorRule> = rules.collect();
    let next = state.updated(
        device,
        gradients,
        &spec::optimizer(spec),
        &step_scalars,
        |name| rules[name],
    )?;
    let entries = entries(spec, layers, &next)?;
    Ok(Updated {
        state: next,
        entries,
    })
}

/// The state of a stage by address, by rising index.
pub(crate) fn entries(
    spec: &JobSpec,
    layers: Layers,
    state: &TrainState,
) -> Result<Vec<TensorState>, KernelError> {
    let entry = |(tensor, name): (u32, String)| {
        let held = &state.0[&name];
        let entry = StateEntry {
            value: tensor_blob::digest(&held.value)?,
            first_moment: moment_blob::digest(&held.first_moment)?,
            second_moment: moment_blob::digest(&held.second_moment)?,
        };
        Ok(TensorState { tensor, entry })
    };
    held_names(spec, layers).into_iter().map(entry).collect()
}
