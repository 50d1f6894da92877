//! Memory of a fine-tune.

use std::collections::BTreeMap;

use concord_kernels::ops::Atoms;
use concord_kernels::packed::BlockFormat;

use super::{PROCESS_BYTES, StageBytes};
use crate::config::{Cut, DecoderConfig, LoraSpec, Projection, Span, TensorPlace, expert_of};
use crate::decoder::{Trainable, TrainableTensor, WeightBytes};
use crate::train::MomentForm;

/// Steps whose inputs of leaves are held for checkers: the one that is computed, and the one
/// before, whose audits are under way.
const OPEN_STEPS: u64 = 2;

/// Values of a trained element: of now, of the step before, which an audit may ask for, and of the
/// step after.
const VALUES: u64 = 3;

/// The properties of a fine-tune on which its memory depends.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingRun {
    /// What is trained.
    pub trainable: Trainable,
    /// Tokens of a sequence.
    pub sequence_len: u32,
    /// Sequences of a microbatch.
    pub micro_batch_size: u32,
    /// Microbatches of a step.
    pub microbatches: u32,
    /// Whether layers are computed again in the backward pass rather than kept: then what enters
    /// each is kept.
    pub recompute: bool,
    /// How AdamW's moments are kept.
    pub moments: MomentForm,
    /// Whether inputs of an adapter are dropped.
    pub drops: bool,
    /// Whether targets are smoothed.
    pub smooths: bool,
}

impl TrainingRun {
    /// A LoRA fine-tune of all projections.
    pub fn lora(rank: u32, sequence_len: u32) -> Self {
        Self {
            trainable: Trainable::Lora(LoraSpec::uniform(rank, 1.0, Projection::ALL)),
            sequence_len,
            micro_batch_size: 1,
            microbatches: 1,
            recompute: false,
            moments: MomentForm::F32,
            drops: false,
            smooths: false,
        }
    }
}

/// Bytes of one part of a model: the embedding, a layer, or final norm and head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartBytes {
    /// See [`StageBytes::weights`].
    pub weights: u64,
    /// See [`StageBytes::state`].
    pub state: u64,
    /// See [`StageBytes::moments`].
    pub moments: u64,
    /// See [`StageBytes::gradients`].
    pub gradients: u64,
    /// Of these, one gradient of each trained element.
    pub gradient: u64,
}

impl PartBytes {
    /// A part with `weights` bytes that trains `elements`.
    fn new(weights: u64, elements: u64, run: &TrainingRun) -> Self {
        Self {
            weights,
            state: 4 * VALUES * elements,
            moments: VALUES * run.moments.bytes(elements),
            gradients: 4 * gradients(run) * elements,
            gradient: 4 * elements,
        }
    }

    /// State, moments and gradients together.
    pub fn trained(&self) -> u64 {
        self.state + self.moments + self.gradients
    }
}

/// Bytes of the parts of a model that is trained. All layers count alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingBytes {
    /// The embedding, on the first stage.
    pub embed: PartBytes,
    /// One layer.
    pub layer: PartBytes,
    /// One expert of a layer that can be cut between them, of that; else nothing.
    pub expert: PartBytes,
    /// Final norm and head, on the last stage.
    pub head: PartBytes,
    /// What both ends count of a tied embedding, and a stage with both holds once.
    pub shared: PartBytes,
    /// What the backward pass of one layer needs of one microbatch.
    pub tape: u64,
    /// Hidden states of one microbatch between two layers.
    pub boundary: u64,
    /// What came from, or went to, another stage, until its audits are over: for each end of a
    /// stage that is none of the model.
    pub openings: u64,
    /// What goes over a cut within a layer for one microbatch, there or back, whichever is more;
    /// 0 where none can be.
    pub cut: u64,
    /// Of a stage, whatever its layers.
    pub workspace: u64,
    /// What the last stage needs besides: the loss, one atom of tokens at a time.
    pub logits: u64,
    recompute: bool,
    layers: usize,
    experts: usize,
}

/// Bytes of a token that go over a cut within a layer, there or back, whichever is more.
fn cut_bytes(config: &DecoderConfig) -> u64 {
    let within = Cut {
        layer: 0,
        expert: 1,
    };
    let [there, back] = config.cut_widths(within);
    4 * there.max(back) as u64
}

impl TrainingBytes {
    /// Those of a model whose matrices lie in the format that `format` gives by the name, and stay
    /// so where they are not trained; see [`WeightBytes::kept`].
    pub fn of(
        config: &DecoderConfig,
        run: &TrainingRun,
        format: &dyn Fn(&str) -> BlockFormat,
    ) -> Self {
        let held = match run.trainable {
            Trainable::Full => WeightBytes::of(config),
            Trainable::Lora(_) | Trainable::Nothing => WeightBytes::kept(config, format),
        };
        let trained = run.trainable.tensors(config);
        let experts = config.experts_to_cut();
        let in_expert = match experts {
            Some(_) => largest_expert(&trained),
            None => 0,
        };
        let elements = |wanted: &dyn Fn(TensorPlace) -> bool| -> u64 {
            let wanted = trained.iter().filter(|tensor| wanted(tensor.place));
            wanted.map(|tensor| elements(&tensor.shape)).sum()
        };
        let in_layer = largest_layer(config, &trained);
        let at_start = elements(&|place| place == TensorPlace::Embed);
        let at_end = elements(&|place| match place {
            TensorPlace::FinalNorm | TensorPlace::Head => true,
            TensorPlace::Embed => config.tie_embeddings,
            TensorPlace::Layer(_) => false,
        });
        // Low-rank factors are coded as well; a fully trained weight is counted in `held`. Of
        // tensors that are trained whole beside an adapter a stage holds f32 or codes, where it may
        // have packed blocks of others.
        let (factors, whole) = match run.trainable {
            Trainable::Lora(_) => (2, 4),
            Trainable::Full | Trainable::Nothing => (0, 0),
        };
        let part = |weights, elements| PartBytes::new(weights, elements, run);
        let tokens = u64::from(run.micro_batch_size) * u64::from(run.sequence_len);
        let (tape, boundary) = (
            tokens * tape(config, &run.trainable),
            tokens * 4 * config.hidden as u64,
        );
        let tied = match config.tie_embeddings {
            true => at_start,
            false => 0,
        };
        Self {
            embed: part(held.embed + whole * at_start, at_start),
            layer: part(held.layer + factors * in_layer, in_layer),
            expert: part(held.expert + factors * in_expert, in_expert),
            head: part(held.head + whole * at_end, at_end),
            shared: PartBytes {
                // Both uses have a gradient of their own.
                gradients: 0,
                ..part(held.shared, tied)
            },
            tape,
            boundary,
            cut: experts.map_or(0, |_| tokens * cut_bytes(config)),
            openings: OPEN_STEPS * u64::from(run.microbatches) * boundary,
            workspace: PROCESS_BYTES
                + tokens * (pass(config, run.drops) + 4 * config.head_dim as u64)
                + if run.recompute { tape } else { 0 },
            logits: logits(config, run),
            recompute: run.recompute,
            layers: config.layers,
            experts: experts.unwrap_or(0),
        }
    }

    /// Bytes that one layer takes for each microbatch in flight.
    pub fn in_flight(&self) -> u64 {
        if self.recompute {
            self.boundary
        } else {
            self.tape
        }
    }

    /// A stage of these layers, of one cut within a layer as if it had it whole but for its weights
    /// and what is trained, in whose pipeline so many microbatches are in flight. The last stage
    /// has one of them: there the way back of each starts at once.
    pub fn stage(&self, layers: Span, in_flight: u32) -> StageBytes {
        let count = layers.layers().len() as u64;
        let (is_first, is_last) = (layers.is_first(), layers.is_last(self.layers));
        let in_flight = if is_last { 1 } else { u64::from(in_flight) };
        let kept = in_flight.saturating_mul(self.in_flight());
        let inner_ends = u64::from(!is_first) + u64::from(!is_last);
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        let sum = |of: &dyn Fn(&PartBytes) -> u64| {
            let ends = part(is_first, of(&self.embed)) + part(is_last, of(&self.head));
            ends - part(is_first && is_last, of(&self.shared))
                + layers.sum(self.experts, of(&self.layer), of(&self.expert))
        };
        StageBytes {
            weights: sum(&|part| part.weights),
            state: sum(&|part| part.state),
            moments: sum(&|part| part.moments),
            gradients: sum(&|part| part.gradients),
            activations: count
                .saturating_mul(kept)
                .saturating_add(inner_ends * self.openings),
            key_values: 0,
            workspace: self.workspace + if is_last { self.logits } else { 0 },
        }
    }
}

/// Gradients of an element that are there at the same time. Of the step that is computed: that of
/// the microbatch, and sums on each level of the tree below which microbatches are missing. Of the
/// step before: its sum. Where an adapter is trained, checkers may ask for those of each microbatch
/// of both.
fn gradients(run: &TrainingRun) -> u64 {
    let levels = 1 + u64::from(run.microbatches.max(1).ilog2());
    match run.trainable {
        Trainable::Full => levels + 1,
        Trainable::Lora(_) | Trainable::Nothing => {
            let of_microbatches = OPEN_STEPS * u64::from(run.microbatches);
            // A sum of one is the gradient itself.
            of_microbatches + if run.microbatches > 1 { levels } else { 0 }
        }
    }
}

fn trains_head(config: &DecoderConfig, trainable: &Trainable) -> bool {
    match trainable {
        Trainable::Full => true,
        Trainable::Lora(lora) => lora.saves(&config.parts().head_weight()),
        Trainable::Nothing => false,
    }
}

/// Trained elements of a layer. Where layers differ, all count as the largest.
fn largest_layer(config: &DecoderConfig, trained: &[TrainableTensor]) -> u64 {
    let mut layers = vec![0; config.layers];
    for tensor in trained {
        if let TensorPlace::Layer(layer) = tensor.place {
            layers[layer as usize] += elements(&tensor.shape);
        }
    }
    layers.into_iter().max().unwrap_or(0)
}

/// Trained elements of the expert that has most.
fn largest_expert(trained: &[TrainableTensor]) -> u64 {
    let mut sums: BTreeMap<(TensorPlace, u32), u64> = BTreeMap::new();
    for tensor in trained {
        if let Some(expert) = expert_of(&tensor.name) {
            *sums.entry((tensor.place, expert)).or_default() += elements(&tensor.shape);
        }
    }
    sums.into_values().max().unwrap_or(0)
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&dim| dim as u64).product()
}

/// Bytes that the backward pass of a layer needs for each token. Codes take 2 bytes an element, and
/// 4 a row.
fn tape(config: &DecoderConfig, trainable: &Trainable) -> u64 {
    let [hidden, wide, q, kv] = widths(config);
    let heads = (config.heads + config.kv_heads) as u64;
    // Inputs of both parts of the layer as f32 and, after the norm, as codes; the inverse norms.
    let ends = 2 * (6 * hidden + 8);
    // Codes of queries, keys and values, one row for each head; the output as f32 and codes; the
    // largest score and the sum of each query head.
    let attention = 2 * q + 2 * 2 * kv + 4 * (heads + config.kv_heads as u64);
    let attention = attention + 6 * q + 4 + 8 * config.heads as u64;
    let head_norms = if config.qk_norm.is_some() {
        4 * (q + kv + heads)
    } else {
        0
    };
    // Results of gate and up as f32, the input of down as codes.
    let feed_forward = 10 * wide + 4;
    // Codes between the two factors of each adapted projection.
    let low = match trainable {
        Trainable::Lora(lora) => {
            let own = config.projections().into_iter();
            let adapted = own.filter(|projection| lora.targets.contains(projection));
            let [_, rank] = lora.ranks();
            let factors = adapted.clone().count() as u64 * (2 * u64::from(rank) + 4);
            // What the magnitudes of DoRA multiply, as f32.
            let inner = match lora.use_dora {
                true => {
                    4 * adapted
                        .map(|projection| out(config, projection))
                        .sum::<u64>()
                }
                false => 0,
            };
            factors + inner
        }
        Trainable::Full | Trainable::Nothing => 0,
    };
    // The input of each chosen expert as codes, and its result as f32.
    let experts = config.experts.as_ref().map_or(0, |experts| {
        6 * experts.chosen as u64 * hidden + 4 * experts.count as u64
    });
    ends + attention + head_norms + feed_forward + low + experts
}

/// Bytes of temporary values for each token in the backward pass of a layer: gradients between its
/// parts as f32, and as codes for the products; the codes of an input without what is dropped.
fn pass(config: &DecoderConfig, drops: bool) -> u64 {
    let [hidden, wide, q, kv] = widths(config);
    let dropped = if drops { 2 * wide.max(hidden) } else { 0 };
    dropped + 14 * wide + 16 * hidden + 8 * (q + 2 * kv)
}

/// Bytes of the loss: the logits of an atom of tokens as f32 and codes, and as much for what a
/// smoothed target spreads; the hidden states, and, where the head is trained, its gradients on
/// each level of the tree over atoms.
fn logits(config: &DecoderConfig, run: &TrainingRun) -> u64 {
    let sequence = u64::from(run.sequence_len);
    let tokens = sequence.min(Atoms::TOKENS as u64);
    let logits = if run.smooths { 12 } else { 6 } * tokens * config.vocab as u64;
    let hidden = 12 * u64::from(run.micro_batch_size) * sequence * config.hidden as u64;
    let atoms = u64::from(run.micro_batch_size) * sequence.div_ceil(Atoms::TOKENS as u64);
    let gradients = match run.trainable {
        _ if trains_head(config, &run.trainable) => {
            // The last sum is counted among the gradients.
            let levels = u64::from(u64::BITS - atoms.leading_zeros()) - 1;
            levels * 4 * (config.vocab * config.hidden) as u64
        }
        _ => 0,
    };
    logits + hidden + gradients
}

/// Columns of the results of a projection, of all chosen experts together.
fn out(config: &DecoderConfig, projection: Projection) -> u64 {
    let [hidden, wide, q, kv] = widths(config);
    match projection {
        Projection::Q => q,
        Projection::K | Projection::V => kv,
        Projection::Qkv => q + 2 * kv,
        Projection::O => hidden,
        Projection::Gate | Projection::Up => wide,
        Projection::GateUp => 2 * wide,
        Projection::Down => {
            let experts = config.experts.as_ref();
            hidden * experts.map_or(1, |experts| 1 + experts.chosen as u64)
        }
    }
}

fn widths(config: &DecoderConfig) -> [u64; 4] {
    [
        config.hidden,
        config.feed_width(),
        config.q_dim(),
        config.kv_dim(),
    ]
    .map(|width| width as u64)
}
