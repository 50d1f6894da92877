//! Sums over microbatches: added up along the tree, exchanged, and their norms claimed.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::KernelError;
use concord_proto::tree::Node;
use concord_proto::{GradientPart, LeafPhase, TensorNorm};
use concord_verify::training::{StepValues, parts};

use super::leaves::{LeafInputs, Received};
use super::run::{StepProgress, StepRun, check_finite};
use super::{CommittedStage, EngineContext, sending};
use crate::RuntimeError;
use crate::training::core::{PartKey, consumers};
use crate::training::leaf_work::{self, PartSum, Sum};

impl StepRun {
    /// Takes in the gradients of a microbatch. In a full fine-tune they are as large as the model,
    /// so only their sums stay; where an adapter is trained, they stay for checkers.
    pub(super) fn add_gradients(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        microbatch: u32,
        sums: BTreeMap<GradientPart, PartSum>,
    ) -> Result<(), RuntimeError> {
        let mut nodes = self.nodes.iter();
        let whole = nodes.find(|node| (node.start..node.end).contains(&microbatch));
        let whole = *whole.ok_or_else(missing)?;
        for (part, PartSum { tensors, digests }) in sums {
            if !job.computes_sums_again() {
                for (digest, tensor) in digests.iter().zip(&tensors) {
                    self.openings.tensor(*digest, tensor);
                }
            }
            self.gradient_digests.insert((microbatch, part), digests);
            let sums = self.partial_sums.entry(part).or_default();
            sums.insert(&context.device, microbatch, whole, tensors)?;
        }
        Ok(())
    }

    /// Sends the sums over the microbatches of this worker to the workers that need them.
    pub(super) fn reduce(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
    ) -> Result<(), RuntimeError> {
        for node in self.nodes.clone() {
            let inputs = job.reduce_inputs(node, &self.gradient_digests);
            let mut outputs = Vec::new();
            for part in parts(&job.spec, job.layers) {
                let sum = self.node_sum(node, part)?;
                outputs.push(sum.port(node, part));
                for to in consumers(&job.plan, job.slot, part) {
                    let port = sum.port(node, part);
                    sending::send(
                        (job, self.attempt),
                        context,
                        to,
                        node.start,
                        port,
                        &sum.tensors,
                    )?;
                }
                let own = Received { sum, origin: None };
                self.exchange
                    .insert(PartKey { part, node }, context.key.public(), own);
            }
            let leaf = job.leaf(
                &mut self.openings,
                LeafPhase::Reduce,
                node.start,
                inputs,
                outputs,
            );
            // The gradients of a single microbatch are the sum, which is held.
            if job.computes_sums_again() && node.len() > 1 {
                let microbatches = node.start..node.end;
                let opened = microbatches.filter_map(|m| self.opened.get(&m).copied());
                self.openings
                    .again(node, job.value_digests(), opened.collect());
            }
            self.leaves.insert((LeafPhase::Reduce, node.start), leaf);
        }
        self.progress = StepProgress::Exchanging;
        Ok(())
    }

    fn node_sum(&mut self, node: Node, part: GradientPart) -> Result<Arc<PartSum>, RuntimeError> {
        let sums = self.partial_sums.get_mut(&part);
        let tensors = sums.and_then(|sums| sums.take(node)).ok_or_else(missing)?;
        let known = match node.len() {
            1 => self.gradient_digests.get(&(node.start, part)).cloned(),
            _ => None,
        };
        let sum = match known {
            Some(digests) => PartSum { tensors, digests },
            None => PartSum::new(tensors)?,
        };
        Ok(Arc::new(sum))
    }

    /// All partial sums are in: reports the norms of the step's gradients.
    pub(super) fn report(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
    ) -> Result<(), RuntimeError> {
        let device = &context.device;
        let clone = |received: &Received| Ok(received.sum.tensors.clone());
        let add = |sum: &mut Sum, other| leaf_work::add_sums(device, sum, other);
        let total = |part| {
            let total = self.exchange.total(part, &clone, &add)?;
            Some(total.map(|total| (part, total)))
        };
        let totals = [
            GradientPart::Own,
            GradientPart::TiedEmbed,
            GradientPart::TiedHead,
        ]
        .into_iter()
        .filter_map(total)
        .collect::<Result<_, KernelError>>()?;
        self.step_gradients = leaf_work::step_gradients(&job.spec, job.layers, device, totals)?;
        let mut norms = leaf_work::norms(&job.spec, job.layers, device, &self.step_gradients)?;
        for norm in &norms {
            let name = &job.spec.trainable[norm.tensor as usize].name;
            check_finite(|| format!("gradient norm of {name}"), norm.squared.get())?;
        }
        context.faults.after_norms(job.step, &mut norms);
        let mut inputs = LeafInputs::default();
        job.step_sums(&mut self.openings, &self.exchange, &mut inputs);
        let outputs = vec![leaf_work::norms_port(&norms)];
        let leaf = job.leaf(&mut self.openings, LeafPhase::Norm, 0, inputs, outputs);
        self.leaves.insert((LeafPhase::Norm, 0), leaf);
        self.report_losses(job, context, norms);
        Ok(())
    }

    /// Reports the losses of this worker's microbatches, and norms, where gradients were computed.
    pub(super) fn report_losses(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        norms: Vec<TensorNorm>,
    ) {
        self.losses.sort_by_key(|loss| loss.microbatch);
        self.progress = StepProgress::Reported;
        let losses = self.losses.clone();
        self.claim_first_half(job, context, StepValues { losses, norms });
    }
}

fn missing() -> RuntimeError {
    RuntimeError::Unsupported("a gradient is missing".to_string())
}
