//! One step of a stage: microbatches forward and back, sums, exchange, update.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{KernelError, Tensor};
use concord_models::decoder::Stage;
use concord_proto::session::{Scalars, ToCoordinator};
use concord_proto::tree::{Node, cover};
use concord_proto::wire::FrameHeader;
use concord_proto::{
    Claim, ClaimInput, F32Bits, GradientPart, Leaf, LeafPhase, MicrobatchLoss, Origin, Port,
    PortKind, Signed, WorkerId, leaf_root,
};
use concord_verify::training::parts;

use super::job::Job;
use super::leaves::Received;
use super::openings::StepOpenings;
use super::{Engine, EngineEffect, ReceivedFrame};
use crate::RuntimeError;
use crate::core::{Exchange, PartKey, Schedule, Work, consumers};
use crate::data::Microbatch;
use crate::tensor_blob;
use crate::work::{self, Forwarded, PartSum, Sum, Updated};

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Microbatches are under way.
    Computing,
    /// Partial sums of others are awaited.
    Exchanging,
    /// Norms are reported; the scalars of all are awaited.
    Reported,
}

/// The step in progress.
pub(crate) struct Run {
    batches: BTreeMap<u32, Microbatch>,
    schedule: Schedule,
    progress: Progress,
    activations: BTreeMap<u32, (Arc<Tensor>, ClaimInput)>,
    gradients: BTreeMap<u32, (Arc<Tensor>, ClaimInput)>,
    /// Tapes of microbatches in flight; none where the forward pass is done again.
    tapes: BTreeMap<u32, Option<Forwarded>>,
    sums: BTreeMap<(u32, GradientPart), Arc<PartSum>>,
    losses: Vec<MicrobatchLoss>,
    leaves: BTreeMap<(LeafPhase, u32), Leaf>,
    exchange: Exchange<Received>,
    step_gradients: BTreeMap<String, Arc<Tensor>>,
    openings: StepOpenings,
    pub(crate) updated: Option<Updated>,
}

impl Run {
    pub(crate) fn new(job: &Job, stage: &Stage, batches: BTreeMap<u32, Microbatch>) -> Self {
        let replica = &job.plan.replicas[job.seat.replica];
        let (first, last) = (stage.is_first(), stage.is_last());
        let mut openings = StepOpenings::default();
        job.open_state(&mut openings);
        Self {
            batches,
            schedule: Schedule::new(replica.start, replica.end, job.depth, first, last),
            progress: Progress::Computing,
            activations: BTreeMap::new(),
            gradients: BTreeMap::new(),
            tapes: BTreeMap::new(),
            sums: BTreeMap::new(),
            losses: Vec::new(),
            leaves: BTreeMap::new(),
            exchange: Exchange::new(&job.spec, &job.plan, job.seat),
            step_gradients: BTreeMap::new(),
            openings,
            updated: None,
        }
    }

    /// Takes tensors in from the neighbour that they must come from.
    pub(crate) fn receive(&mut self, job: &Job, frame: ReceivedFrame) {
        let FrameHeader {
            port,
            origin,
            microbatch,
            ..
        } = frame.header;
        let pipeline = &job.plan.replicas[job.seat.replica].workers;
        let neighbour = |stage: Option<usize>| stage.and_then(|s| pipeline.get(s)).copied();
        let input = ClaimInput {
            port,
            origin: Some(origin.clone()),
        };
        match port.kind {
            PortKind::Activation(layer) => {
                let expected = neighbour(job.seat.stage.checked_sub(1));
                let fits = layer == job.layers.start && expected == Some(origin.worker);
                if let (true, [tensor]) = (fits, &frame.tensors[..]) {
                    self.activations.insert(microbatch, (tensor.clone(), input));
                    self.schedule.activation_arrived(microbatch);
                }
            }
            PortKind::Gradient(layer) => {
                let fits = layer == job.layers.end
                    && neighbour(Some(job.seat.stage + 1)) == Some(origin.worker);
                if let (true, [tensor]) = (fits, &frame.tensors[..]) {
                    self.gradients.insert(microbatch, (tensor.clone(), input));
                    self.schedule.gradient_arrived(microbatch);
                }
            }
            PortKind::Partial { node, part } => {
                let sum = PartSum {
                    tensors: frame.tensors,
                    digests: frame.digests,
                };
                let from = origin.worker;
                let received = Received {
                    sum: Arc::new(sum),
                    origin: Some(origin),
                };
                self.exchange.insert(PartKey { part, node }, from, received);
            }
            _ => {}
        }
    }

    /// Does one unit of work; false where something must come in first.
    pub(crate) fn work(&mut self, job: &Job, engine: &mut Engine) -> Result<bool, RuntimeError> {
        match self.progress {
            Progress::Computing => match self.schedule.take() {
                Some(Work::Forward(microbatch)) => self.forward(job, engine, microbatch)?,
                Some(Work::Backward(microbatch)) => self.backward(job, engine, microbatch)?,
                None if self.schedule.is_done() => self.reduce(job, engine)?,
                None => return Ok(false),
            },
            Progress::Exchanging if self.exchange.is_complete() => self.report(job, engine)?,
            Progress::Exchanging | Progress::Reported => return Ok(false),
        }
        Ok(true)
    }

    fn forward(
        &mut self,
        job: &Job,
        engine: &mut Engine,
        microbatch: u32,
    ) -> Result<(), RuntimeError> {
        let batch = &self.batches[&microbatch];
        let activation = self.activations.get(&microbatch);
        let hidden = activation.map(|(tensor, _)| &**tensor);
        #[cfg(feature = "wrong-data")]
        let wrong = engine
            .wrong_data
            .and_then(|lie| lie.in_place_of(job.step, &batch.batch));
        #[cfg(not(feature = "wrong-data"))]
        let wrong: Option<concord_models::decoder::Batch> = None;
        let tokens = wrong.as_ref().unwrap_or(&batch.batch);
        let forwarded = work::forward(job.stage(), job.layers, tokens, hidden)?;
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
            let next = job.plan.replicas[job.seat.replica].workers[job.seat.stage + 1];
            send(job, engine, next, microbatch, output, &[hidden])?;
        }
        let again = job.recompute && forwarded.loss().is_none();
        self.tapes.insert(microbatch, (!again).then_some(forwarded));
        Ok(())
    }

    fn backward(
        &mut self,
        job: &Job,
        engine: &mut Engine,
        microbatch: u32,
    ) -> Result<(), RuntimeError> {
        let batch = &self.batches[&microbatch];
        let activation = self.activations.remove(&microbatch);
        let hidden = activation.as_ref().map(|(tensor, _)| &**tensor);
        let forwarded = match self.tapes.remove(&microbatch).flatten() {
            Some(forwarded) => forwarded,
            None => work::forward(job.stage(), job.layers, &batch.batch, hidden)?,
        };
        let gradient = self.gradients.remove(&microbatch);
        let d_output = gradient.as_ref().map(|(tensor, _)| &**tensor);
        let (spec, layers, tokens) = (&job.spec, job.layers, &batch.batch);
        let done = work::backward(
            spec,
            job.stage(),
            layers,
            microbatch,
            tokens,
            forwarded,
            d_output,
        )?;
        let mut inputs = job.common_inputs(batch, activation.as_ref().map(|(_, input)| input));
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
        for (part, sum) in done.sums {
            for (digest, tensor) in sum.digests.iter().zip(&sum.tensors) {
                self.openings.tensor(*digest, tensor);
            }
            self.sums.insert((microbatch, part), sum);
        }
        let port = done
            .outputs
            .iter()
            .find(|port| matches!(port.kind, PortKind::Gradient(_)));
        if let (Some(port), Some(d_input)) = (port, done.d_input) {
            let previous = job.plan.replicas[job.seat.replica].workers[job.seat.stage - 1];
            send(job, engine, previous, microbatch, *port, &[d_input])?;
        }
        Ok(())
    }

    /// Adds up the microbatches of this worker along the tree and sends the sums to whom they
    /// concern.
    fn reduce(&mut self, job: &Job, engine: &mut Engine) -> Result<(), RuntimeError> {
        let replica = &job.plan.replicas[job.seat.replica];
        for node in cover(job.spec.microbatches, replica.start, replica.end) {
            let inputs = job.reduce_inputs(node, |m, part| self.sums[&(m, part)].clone());
            let mut outputs = Vec::new();
            for part in parts(&job.spec, job.layers) {
                let sum = self.node_sum(engine, node, part)?;
                outputs.push(sum.port(node, part));
                for to in consumers(&job.plan, job.seat, part) {
                    let port = sum.port(node, part);
                    send(job, engine, to, node.start, port, &sum.tensors)?;
                }
                let own = Received { sum, origin: None };
                self.exchange
                    .insert(PartKey { part, node }, engine.key.public(), own);
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
        self.progress = Progress::Exchanging;
        Ok(())
    }

    fn node_sum(
        &self,
        engine: &Engine,
        node: Node,
        part: GradientPart,
    ) -> Result<Arc<PartSum>, KernelError> {
        if node.len() == 1 {
            return Ok(self.sums[&(node.start, part)].clone());
        }
        let leaf = |microbatch: u32| &self.sums[&(microbatch, part)].tensors[..];
        let sum = work::reduce(&engine.device, node, &leaf)?;
        PartSum::new(sum).map(Arc::new)
    }

    /// All partial sums are in: reports the norms of the step's gradients.
    fn report(&mut self, job: &Job, engine: &mut Engine) -> Result<(), RuntimeError> {
        let device = &engine.device;
        let clone = |received: &Received| Ok(received.sum.tensors.clone());
        let add = |sum: &mut Sum, other| work::add_sums(device, sum, other);
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
        self.step_gradients = work::step_gradients(&job.spec, job.layers, device, totals)?;
        let norms = work::norms(&job.spec, job.layers, device, &self.step_gradients)?;
        for norm in &norms {
            let name = &job.spec.trainable[norm.tensor as usize].name;
            check_finite(|| format!("gradient norm of {name}"), norm.squared.get())?;
        }
        self.losses.sort_by_key(|loss| loss.microbatch);
        self.progress = Progress::Reported;
        engine.report(ToCoordinator::Computed {
            job: job.id,
            epoch: job.plan.epoch,
            step: job.step,
            losses: self.losses.clone(),
            norms,
        });
        Ok(())
    }

    /// Computes the update, signs the claim; the state stays as it was until the commit.
    pub(crate) fn update(
        &mut self,
        job: &Job,
        engine: &mut Engine,
        scalars: &Scalars,
    ) -> Result<(), RuntimeError> {
        if self.progress != Progress::Reported || self.updated.is_some() {
            return Ok(());
        }
        let (spec, layers, device) = (&job.spec, job.layers, &engine.device);
        #[cfg_attr(not(feature = "liars"), expect(unused_mut))]
        let mut updated = work::update(
            spec,
            layers,
            device,
            &job.state,
            &self.step_gradients,
            scalars,
        )?;
        #[cfg(feature = "liars")]
        if engine
            .lie
            .as_ref()
            .is_some_and(|lie| lie.skips_step(job.step))
        {
            updated.state = job.state.clone();
            updated.entries.clone_from(&job.entries);
        }
        let inputs = job.update_inputs(&mut self.openings, &self.exchange, scalars);
        let outputs = updated.outputs();
        let leaf = job.leaf(&mut self.openings, LeafPhase::Update, 0, inputs, outputs);
        self.leaves.insert((LeafPhase::Update, 0), leaf);
        // The order of a claim: phase by phase, each by rising microbatch.
        let leaves: Vec<Leaf> = self.leaves.values().cloned().collect();
        let claim = Claim {
            job: job.id,
            step: job.step,
            epoch: job.plan.epoch,
            plan: job.plan_digest,
            arithmetic: spec.arithmetic,
            device: engine.device_name.clone(),
            leaf_root: leaf_root(&leaves),
            loss: F32Bits::from(updated.loss),
            grad_norm: F32Bits::from(updated.scalars.grad_norm),
            learning_rate: F32Bits::from(updated.scalars.learning_rate),
            state: updated.entries.clone(),
        };
        let openings = std::mem::take(&mut self.openings);
        engine.openings(|all| all.insert(job.id, job.step, job.plan.epoch, openings));
        self.updated = Some(updated);
        let claim = Signed::new(&engine.key, &claim);
        #[cfg(feature = "liars")]
        let claim = match &mut engine.lie {
            Some(lie) => lie.claim(job.step, claim),
            None => claim,
        };
        engine.report(ToCoordinator::Updated { claim, leaves });
        Ok(())
    }
}

/// What is reported is finite, as everything is that is hashed.
fn check_finite(name: impl FnOnce() -> String, value: f32) -> Result<(), KernelError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(KernelError::NotFinite {
        tensor: name(),
        index: 0,
        value,
    })
}

/// Signs tensors and sends them.
fn send(
    job: &Job,
    engine: &Engine,
    to: WorkerId,
    microbatch: u32,
    port: Port,
    tensors: &[Arc<Tensor>],
) -> Result<(), KernelError> {
    let tensors = tensors
        .iter()
        .map(tensor_blob::on_host)
        .collect::<Result<Vec<_>, _>>()?;
    let message = Origin::message(&job.id, job.step, job.plan.epoch, microbatch, &port);
    let header = FrameHeader {
        job: job.id,
        epoch: job.plan.epoch,
        step: job.step,
        microbatch,
        port,
        origin: Origin::sign(&engine.key, &message),
        bytes: tensors
            .iter()
            .map(|tensor| tensor_blob::encoded_len(tensor))
            .sum(),
    };
    let endpoint = job.endpoints[&to].clone();
    engine.effect(EngineEffect::Send {
        endpoint,
        header: Box::new(header),
        tensors,
    });
    Ok(())
}
