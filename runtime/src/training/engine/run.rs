//! One step of a stage: microbatches forward and back, sums, exchange, update.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{KernelError, Tensor};
use concord_models::decoder::{Keeps, Stage};
use concord_proto::AttemptId;
use concord_proto::session::OpenedMicrobatch;
use concord_proto::tree::{Node, cover};
use concord_proto::wire::FrameHeader;
use concord_proto::{
    ClaimInput, Digest, F32Bits, GradientPart, Leaf, LeafPhase, MicrobatchLoss, Origin, PortKind,
};
use concord_verify::training::StepValues;

use super::leaves::Received;
use super::openings::StepOpenings;
use super::{CommittedStage, EngineContext, ReceivedFrame, sending};
use crate::RuntimeError;
use crate::training::core::{Exchange, MicrobatchSchedule, MicrobatchTask, PartKey};
use crate::training::data::Microbatch;
use crate::training::leaf_work::{self, Forwarded, Purpose, Updated};
use crate::training::partial_sums::PartialSums;
use crate::training::shapes;
use crate::witness::AttemptPlace;

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepProgress {
    /// Microbatches are under way.
    Computing,
    /// Partial sums of others are awaited.
    Exchanging,
    /// Norms are reported; the scalars of all are awaited.
    Reported,
}

/// The first half of the claim, as it was handed in.
pub(super) struct HandedIn {
    pub(super) digest: Digest,
    pub(super) values: StepValues,
}

/// The step in progress.
pub(super) struct StepRun {
    /// As claims name it.
    pub(super) attempt: AttemptId,
    pub(super) previous: Option<AttemptId>,
    /// Whether microbatches go forward for their losses alone.
    pub(super) evaluates: bool,
    batches: BTreeMap<u32, Microbatch>,
    /// Columns of the hidden states that come in, and of the gradients that do.
    widths: [usize; 2],
    schedule: MicrobatchSchedule,
    pub(super) progress: StepProgress,
    activations: BTreeMap<u32, (Arc<Tensor>, ClaimInput)>,
    gradients: BTreeMap<u32, (Arc<Tensor>, ClaimInput)>,
    /// Of microbatches in flight.
    forwarded: BTreeMap<u32, Forwarded>,
    /// The nodes of the tree that cover the microbatches of this worker.
    pub(super) nodes: Vec<Node>,
    pub(super) partial_sums: BTreeMap<GradientPart, PartialSums>,
    /// Addresses of the gradients of each microbatch.
    pub(super) gradient_digests: BTreeMap<(u32, GradientPart), Vec<Digest>>,
    /// What came in for each microbatch, for whoever computes it again.
    pub(super) opened: BTreeMap<u32, OpenedMicrobatch>,
    pub(super) losses: Vec<MicrobatchLoss>,
    pub(super) leaves: BTreeMap<(LeafPhase, u32), Leaf>,
    pub(super) exchange: Exchange<Received>,
    pub(super) step_gradients: BTreeMap<String, Arc<Tensor>>,
    pub(super) openings: StepOpenings,
    /// The first half of the claim, once it is handed in.
    pub(super) handed_in: Option<HandedIn>,
    pub(super) updated: Option<Updated>,
}

impl StepRun {
    pub(super) fn new(
        job: &CommittedStage,
        stage: &Stage,
        at: AttemptPlace,
        batches: BTreeMap<u32, Microbatch>,
    ) -> Self {
        let replica = &job.plan.replicas[job.slot.replica];
        let (first, last) = (stage.is_first(), stage.is_last());
        let run = job.spec.run_of(job.step, replica.start, replica.end);
        let (nodes, exchange, schedule) = match job.evaluates() {
            true => {
                let (start, end) = (run.start, run.end);
                let schedule =
                    MicrobatchSchedule::forward_alone(start, end, job.depth, first, last);
                (Vec::new(), Exchange::of_nothing(), schedule)
            }
            false => (
                cover(job.spec.microbatches, run.start, run.end),
                Exchange::new(&job.spec, &job.plan, job.slot),
                MicrobatchSchedule::new(run.start, run.end, job.depth, first, last),
            ),
        };
        let mut openings = StepOpenings::default();
        job.open_state(&mut openings);
        Self {
            attempt: at.attempt,
            previous: at.previous,
            evaluates: job.evaluates(),
            batches,
            widths: stage.training_widths(),
            schedule,
            progress: StepProgress::Computing,
            activations: BTreeMap::new(),
            gradients: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            nodes,
            partial_sums: BTreeMap::new(),
            gradient_digests: BTreeMap::new(),
            opened: BTreeMap::new(),
            losses: Vec::new(),
            leaves: BTreeMap::new(),
            exchange,
            step_gradients: BTreeMap::new(),
            openings,
            handed_in: None,
            updated: None,
        }
    }

    /// The one tensor of a frame, if it has a row of `width` for each token of the microbatch. That
    /// it has not is said: the sender is waited for.
    fn one_of_tokens(&self, frame: &ReceivedFrame, width: usize) -> Option<Arc<Tensor>> {
        let tokens = self
            .batches
            .get(&frame.header.microbatch)?
            .batch
            .tokens
            .len();
        match &frame.tensors[..] {
            [tensor] if shapes::is_of_tokens(tensor, tokens, width) => Some(tensor.clone()),
            _ => {
                let from = frame.header.origin.worker.short();
                let kind = frame.header.port.kind;
                tracing::warn!("worker {from} sent another shape than is due for {kind:?}");
                None
            }
        }
    }

    /// Takes tensors in from the neighbour that they must come from, in the shape that they must
    /// have, once. Others are left out, and the sender is waited for.
    pub(super) fn receive(&mut self, job: &CommittedStage, frame: ReceivedFrame) {
        let FrameHeader {
            attempt,
            port,
            origin,
            microbatch,
            ..
        } = frame.header.clone();
        if attempt != self.attempt {
            let from = origin.worker.short();
            tracing::warn!("worker {from} sent a tensor of another attempt at the step");
            return;
        }
        let pipeline = job.pipeline();
        let neighbour = |stage: Option<usize>| stage.and_then(|s| pipeline.get(s)).copied();
        let input = ClaimInput {
            port,
            origin: Some(origin.clone()),
        };
        match port.kind {
            PortKind::Activation(edge) => {
                let expected = neighbour(job.slot.stage.checked_sub(1));
                if edge != job.layers.start || expected != Some(origin.worker) {
                    return;
                }
                let tensor = self.one_of_tokens(&frame, self.widths[0]);
                if let Some(tensor) = tensor
                    && self.schedule.activation_arrived(microbatch)
                {
                    self.activations.insert(microbatch, (tensor, input));
                }
            }
            PortKind::Gradient(edge) => {
                let expected = neighbour(Some(job.slot.stage + 1));
                if edge != job.layers.end || expected != Some(origin.worker) {
                    return;
                }
                let tensor = self.one_of_tokens(&frame, self.widths[1]);
                if let Some(tensor) = tensor
                    && self.schedule.gradient_arrived(microbatch)
                {
                    self.gradients.insert(microbatch, (tensor, input));
                }
            }
            PortKind::Partial { node, part } => {
                let key = PartKey { part, node };
                self.receive_sum(job, key, (microbatch, origin), frame);
            }
            PortKind::State
            | PortKind::Tokens
            | PortKind::Loss
            | PortKind::Moments
            | PortKind::Scalars
            | PortKind::Norms => {
                let from = origin.worker.short();
                tracing::debug!(
                    "worker {from} sent {:?}, which no stage takes in",
                    port.kind
                );
            }
        }
    }

    /// A sum of gradients comes in from another worker, under a microbatch.
    fn receive_sum(
        &mut self,
        job: &CommittedStage,
        key: PartKey,
        (microbatch, origin): (u32, Origin),
        frame: ReceivedFrame,
    ) {
        let (from, name) = (origin.worker, origin.worker.short());
        // What a claim shows of it is a signature over the first microbatch of the node.
        if microbatch != key.node.start {
            tracing::warn!("worker {name} sent a sum under another microbatch");
            return;
        }
        let sum = leaf_work::PartSum {
            tensors: frame.tensors,
            digests: frame.digests,
        };
        if !shapes::are_gradients(&sum.tensors, &job.spec, job.layers, key.part) {
            tracing::warn!("worker {name} sent a sum of gradients of other shapes");
            return;
        }
        let received = Received {
            sum: Arc::new(sum),
            origin: Some(origin),
        };
        self.exchange.insert(key, from, received);
    }

    /// Hidden states of a microbatch are on the link to the next stage.
    pub(super) fn sent(&mut self, microbatch: u32) {
        self.schedule.sent(microbatch);
    }

    /// Does one unit of work; false where something must come in first.
    pub(super) fn work(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
    ) -> Result<bool, RuntimeError> {
        match self.progress {
            StepProgress::Computing => match self.schedule.take() {
                Some(MicrobatchTask::Forward(microbatch)) => {
                    self.forward(job, context, microbatch)?
                }
                Some(MicrobatchTask::Backward(microbatch)) => {
                    self.backward(job, context, microbatch)?
                }
                None if !self.schedule.is_done() => return Ok(false),
                None if self.evaluates => self.report_losses(job, context, Vec::new()),
                None => self.reduce(job, context)?,
            },
            StepProgress::Exchanging if self.exchange.is_complete() => self.report(job, context)?,
            StepProgress::Exchanging | StepProgress::Reported => return Ok(false),
        }
        Ok(true)
    }

    fn forward(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        microbatch: u32,
    ) -> Result<(), RuntimeError> {
        let batch = &self.batches[&microbatch];
        let activation = self.activations.get(&microbatch);
        let hidden = activation.map(|(tensor, _)| &**tensor);
        let wrong = context.faults.before_forward(job.step, &batch.batch);
        let tokens = wrong.as_ref().unwrap_or(&batch.batch);
        let purpose = match (self.evaluates, job.recompute) {
            (true, _) => Purpose::Evaluation,
            (false, true) => Purpose::Update(Keeps::Inputs),
            (false, false) => Purpose::Update(Keeps::Tapes),
        };
        let forwarded = leaf_work::forward(job.stage(), job.layers, tokens, hidden, purpose)?;
        if let Some(sum) = forwarded.loss() {
            check_finite(|| format!("loss of microbatch {microbatch}"), sum)?;
            self.losses.push(MicrobatchLoss {
                microbatch,
                sum: F32Bits::from(sum),
            });
        }
        let inputs = job.common_inputs(batch, activation.map(|(_, input)| input));
        if let Some((tensor, input)) = activation {
            self.openings.tensor(input.port.digest, tensor);
        }
        let output = forwarded.output;
        let outputs = vec![output];
        let leaf = job.leaf(
            &mut self.openings,
            LeafPhase::Forward,
            microbatch,
            inputs,
            outputs,
        );
        self.leaves.insert((LeafPhase::Forward, microbatch), leaf);
        if let Some(hidden) = forwarded.hidden() {
            let next = job.pipeline()[job.slot.stage + 1];
            sending::send(
                (job, self.attempt),
                context,
                next,
                microbatch,
                output,
                &[hidden],
            )?;
        }
        match self.evaluates {
            true => drop(self.activations.remove(&microbatch)),
            false => drop(self.forwarded.insert(microbatch, forwarded)),
        }
        Ok(())
    }

    fn backward(
        &mut self,
        job: &CommittedStage,
        context: &EngineContext,
        microbatch: u32,
    ) -> Result<(), RuntimeError> {
        let batch = &self.batches[&microbatch];
        let activation = self.activations.remove(&microbatch);
        let forwarded = self.forwarded.remove(&microbatch).ok_or_else(|| {
            RuntimeError::Unsupported("a gradient came before its microbatch".into())
        })?;
        let gradient = self.gradients.remove(&microbatch);
        let d_output = gradient.as_ref().map(|(tensor, _)| &**tensor);
        let (spec, layers, tokens) = (&job.spec, job.layers, &batch.batch);
        let done = leaf_work::backward(
            spec,
            job.stage(),
            layers,
            microbatch,
            tokens,
            forwarded,
            d_output,
        )?;
        let activation = activation.as_ref().map(|(_, input)| input);
        let mut inputs = job.common_inputs(batch, activation);
        let opened = OpenedMicrobatch {
            activation: activation.map(|input| input.port.digest),
            gradient: gradient.as_ref().map(|(_, input)| input.port.digest),
        };
        self.opened.insert(microbatch, opened);
        if let Some((tensor, input)) = gradient {
            self.openings.tensor(input.port.digest, &tensor);
            inputs.push(input.port, input.origin, vec![input.port.digest]);
        }
        let outputs = done.outputs.clone();
        let leaf = job.leaf(
            &mut self.openings,
            LeafPhase::Backward,
            microbatch,
            inputs,
            outputs,
        );
        self.leaves.insert((LeafPhase::Backward, microbatch), leaf);
        self.add_gradients(job, context, microbatch, done.sums)?;
        let port = done
            .outputs
            .iter()
            .find(|port| matches!(port.kind, PortKind::Gradient(_)));
        if let (Some(port), Some(d_input)) = (port, done.d_input) {
            let previous = job.pipeline()[job.slot.stage - 1];
            sending::send(
                (job, self.attempt),
                context,
                previous,
                microbatch,
                *port,
                &[d_input],
            )?;
        }
        Ok(())
    }
}

/// Checks that a value that is reported is finite, as all that is hashed.
pub(super) fn check_finite(name: impl FnOnce() -> String, value: f32) -> Result<(), KernelError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(KernelError::NotFinite {
        tensor: name(),
        index: 0,
        value,
    })
}
