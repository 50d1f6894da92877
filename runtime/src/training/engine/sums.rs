//! Sums over microbatches: added up along the tree, exchanged, and their norms reported.

use std::sync::Arc;

use concord_kernels::KernelError;
use concord_proto::session::ToCoordinator;
use concord_proto::tree::{Node, cover};
use concord_proto::{GradientPart, LeafPhase};
use concord_verify::training::parts;

use super::leaves::Received;
use super::run::{StepProgress, StepRun, check_finite};
use super::{CommittedStage, EngineContext, sending};
use crate::RuntimeError;
use crate::training::core::{PartKey, consumers};
use crate::training::leaf_work::{self, PartSum, Sum};

impl StepRun {
    /// Adds up the microbatches of this worker along the tree and sends the sums to the
    /// workers that need them.
    pub(super) fn reduce(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
    ) -> Result<(), RuntimeError> {
        let replica = &job.plan.replicas[job.slot.replica];
        for node in cover(job.spec.microbatches, replica.start, replica.end) {
            let inputs = job.reduce_inputs(node, |m, part| self.sums[&(m, part)].clone());
            let mut outputs = Vec::new();
            for part in parts(&job.spec, job.layers) {
                let sum = self.node_sum(context, node, part)?;
                outputs.push(sum.port(node, part));
                for to in consumers(&job.plan, job.slot, part) {
                    let port = sum.port(node, part);
                    sending::send(job, context, to, node.start, port, &sum.tensors)?;
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
            self.leaves.insert((LeafPhase::Reduce, node.start), leaf);
        }
        self.progress = StepProgress::Exchanging;
        Ok(())
    }

    fn node_sum(
        &self,
        context: &EngineContext,
        node: Node,
        part: GradientPart,
    ) -> Result<Arc<PartSum>, KernelError> {
        if node.len() == 1 {
            return Ok(self.sums[&(node.start, part)].clone());
        }
        let leaf = |microbatch: u32| &self.sums[&(microbatch, part)].tensors[..];
        let sum = leaf_work::reduce(&context.device, node, &leaf)?;
        PartSum::new(sum).map(Arc::new)
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
        let norms = leaf_work::norms(&job.spec, job.layers, device, &self.step_gradients)?;
        for norm in &norms {
            let name = &job.spec.trainable[norm.tensor as usize].name;
            check_finite(|| format!("gradient norm of {name}"), norm.squared.get())?;
        }
        self.losses.sort_by_key(|loss| loss.microbatch);
        self.progress = StepProgress::Reported;
        context.report(ToCoordinator::Computed {
            job: job.id,
            epoch: job.plan.epoch,
            step: job.step,
            losses: self.losses.clone(),
            norms,
        });
        Ok(())
    }
}
