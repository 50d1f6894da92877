//! A leaf computed again, from its inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, KernelError, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Keeps, Stage};
use concord_proto::tree::Node;
use concord_proto::{Digest, GradientPart, LeafPhase, Port, PortKind};

use super::again::sum_again;
use super::fetching::missing;
use super::inputs::Inputs;
use super::job::cached_bytes;
use super::trace::Trace;
use crate::model_blobs::ModelBlobs;
use crate::stage_cache::StageCache;
use crate::training::leaf_work::Purpose;
use crate::training::{leaf_work, shapes};
use crate::{RuntimeError, spec};

/// The sum of a part over a node, where all that it is made of is there.
type Total = Option<Vec<Arc<Tensor>>>;

/// A leaf to be computed again.
pub(crate) struct LeafRerun<'a> {
    pub(crate) device: &'a Device,
    pub(crate) stages: &'a StageCache,
    pub(crate) inputs: &'a Inputs,
}

impl LeafRerun<'_> {
    /// The outputs that the leaf should have; `trace` takes in what is met on the way to them.
    ///
    /// # Errors
    /// [`RuntimeError`] where an input is missing or does not fit, or where a GPU fails.
    pub(crate) fn compute(
        &self,
        spec_address: Digest,
        config: Arc<DecoderConfig>,
        base: &ModelBlobs,
        trace: &mut Trace,
    ) -> Result<Vec<Port>, RuntimeError> {
        match self.inputs.leaf.phase {
            LeafPhase::Reduce if self.inputs.again.is_none() => self.reduce(trace),
            LeafPhase::Norm => self.norms(trace),
            LeafPhase::Update => self.update(trace),
            LeafPhase::Forward | LeafPhase::Backward | LeafPhase::Reduce => {
                let (spec, layers) = (&self.inputs.spec, self.inputs.leaf.layers);
                let (values, positions) = (self.inputs.values()?, self.inputs.sequence_len);
                let held = (base, self.device);
                let cached = cached_bytes(spec, &config, layers, positions, held);
                let (stages, key) = (self.stages, (spec_address, layers));
                let stage = match stages.take(key) {
                    Some(mut stage) => {
                        stage.refresh(&values)?;
                        stage
                    }
                    None => {
                        stages.make_room(cached.unwrap_or(u64::MAX));
                        let options =
                            spec::stage_options(spec, config, layers, self.device, positions)?;
                        Stage::load(options, base, &values)?
                    }
                };
                let ports = match &self.inputs.again {
                    Some(again) => {
                        let (leaf, batches) = (&self.inputs.leaf, &self.inputs.microbatches);
                        let of = (leaf, again, &batches[..]);
                        sum_again((self.device, &stage), spec, of, trace)
                    }
                    None => microbatch(&stage, self.inputs, trace),
                };
                if let Some(bytes) = cached {
                    stages.put(key, bytes, stage);
                }
                ports
            }
        }
    }

    fn reduce(&self, trace: &mut Trace) -> Result<Vec<Port>, RuntimeError> {
        let mut ports = Vec::new();
        for output in &self.inputs.leaf.outputs {
            let PortKind::Partial { node, part } = output.kind else {
                continue;
            };
            let of = |microbatch: u32| {
                let kind = PortKind::Partial {
                    node: Node::leaf(microbatch),
                    part,
                };
                self.inputs.tensors(|found| found == kind)
            };
            if (node.start..node.end).any(|microbatch| of(microbatch).is_none()) {
                return Err(missing("a gradient"));
            }
            let leaf = |microbatch: u32| of(microbatch).unwrap_or(&[]);
            let sum = leaf_work::PartSum::new(leaf_work::reduce(self.device, node, &leaf)?)?;
            trace.add_all(sum.tensors.iter().map(|tensor| &**tensor))?;
            ports.push(sum.port(node, part));
        }
        Ok(ports)
    }

    /// The gradients of the step, from the partial sums of all.
    fn step_gradients(&self) -> Result<BTreeMap<String, Arc<Tensor>>, RuntimeError> {
        let (spec, layers) = (&self.inputs.spec, self.inputs.leaf.layers);
        let mut totals = BTreeMap::new();
        for part in [
            GradientPart::Own,
            GradientPart::TiedEmbed,
            GradientPart::TiedHead,
        ] {
            let root = Node {
                start: 0,
                end: spec.microbatches,
            };
            if let Some(total) = self.total(part, root)? {
                totals.insert(part, total);
            }
        }
        let gradients = leaf_work::step_gradients(spec, layers, self.device, totals)?;
        let held = leaf_work::held_names(spec, layers);
        if held.iter().any(|(_, name)| !gradients.contains_key(name)) {
            return Err(missing("a gradient"));
        }
        Ok(gradients)
    }

    fn norms(&self, trace: &mut Trace) -> Result<Vec<Port>, RuntimeError> {
        let (spec, layers) = (&self.inputs.spec, self.inputs.leaf.layers);
        let gradients = self.step_gradients()?;
        trace.add_all(gradients.values().map(|tensor| &**tensor))?;
        let norms = leaf_work::norms(spec, layers, self.device, &gradients)?;
        Ok(vec![leaf_work::norms_port(&norms)])
    }

    fn update(&self, trace: &mut Trace) -> Result<Vec<Port>, RuntimeError> {
        let (spec, layers) = (&self.inputs.spec, self.inputs.leaf.layers);
        let scalars = self.inputs.scalars.as_ref();
        let scalars = scalars.ok_or_else(|| missing("the scalars"))?;
        let state = self.inputs.state()?.placed(self.device)?;
        let gradients = self.step_gradients()?;
        let updated = leaf_work::update(spec, layers, self.device, &state, &gradients, scalars)?;
        trace.add_all(updated.state.values().values())?;
        Ok(updated.outputs())
    }

    fn total(&self, part: GradientPart, node: Node) -> Result<Total, KernelError> {
        let kind = PortKind::Partial { node, part };
        if let Some(sum) = self.inputs.tensors(|found| found == kind) {
            return Ok(Some(sum.to_vec()));
        }
        let Some((left, right)) = node.children() else {
            return Ok(None);
        };
        let (left, right) = (self.total(part, left)?, self.total(part, right)?);
        let (Some(mut sum), Some(right)) = (left, right) else {
            return Ok(None);
        };
        leaf_work::add(self.device, &mut sum, right)?;
        Ok(Some(sum))
    }
}

fn microbatch(
    stage: &Stage,
    inputs: &Inputs,
    trace: &mut Trace,
) -> Result<Vec<Port>, RuntimeError> {
    let (spec, leaf) = (&inputs.spec, &inputs.leaf);
    let batch = inputs
        .microbatches
        .first()
        .ok_or_else(|| missing("its tokens"))?;
    // Beside a worker of the same machine there may be little memory.
    let (layers, hidden) = (leaf.layers, inputs.hidden());
    let gradient = inputs.tensors(|kind| matches!(kind, PortKind::Gradient(_)));
    let gradient = gradient
        .and_then(|tensors| tensors.first())
        .map(|tensor| &**tensor);
    let goes_back = leaf.phase == LeafPhase::Backward;
    if !shapes::fits_stage(stage, &batch.batch, hidden, (gradient, goes_back)) {
        return Err(missing("hidden states and gradients of the right shape"));
    }
    let purpose = match inputs.evaluates {
        true => Purpose::Evaluation,
        false => Purpose::Update(Keeps::Inputs),
    };
    let forwarded = leaf_work::forward(stage, layers, &batch.batch, hidden, purpose)?;
    trace.add_all(forwarded.tensors())?;
    if !goes_back {
        return Ok(vec![forwarded.output]);
    }
    let done = leaf_work::backward(
        spec,
        stage,
        layers,
        leaf.microbatch,
        &batch.batch,
        forwarded,
        gradient,
    )?;
    trace.add_all(done.tensors())?;
    Ok(done.outputs)
}
