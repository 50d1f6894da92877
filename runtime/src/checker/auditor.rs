//! The re-run of a leaf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use concord_kernels::{Device, KernelError, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::Stage;
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{AuditOrder, ToCoordinator};
use concord_proto::tree::Node;
use concord_proto::{Digest, GradientPart, Keypair, LeafPhase, Port, PortKind, PublicKey, Signed};
use concord_verify::training::leaf_words;

use super::bench::{Bench, Place, busy, same_job};
use super::inputs::{Given, Inputs, Opened, missing};
use super::job::{AuditedJob, kept_bytes};
use crate::blobs::Blobs;
use crate::model_blobs::ModelBlobs;
use crate::serving::audit;
use crate::{RuntimeError, spec as words, work};

/// Re-runs leaves. A worker has one, too: it judges where worker and checker disagree.
pub(crate) struct Auditor {
    device: Device,
    blobs: Blobs,
    key: Keypair,
    bench: Bench,
    /// Set once the GPU cannot go on.
    gpu_gone: Mutex<Option<RuntimeError>>,
    #[cfg(feature = "liars")]
    pub(super) lie: Option<crate::liar::Lie>,
}

/// The sum of a part over a node, where all that it is made of is there.
type Total = Option<Vec<Arc<Tensor>>>;

impl Auditor {
    pub(crate) fn new(device: Device, blobs: Blobs, key: Keypair, bench: Bench) -> Self {
        Self {
            device,
            blobs,
            key,
            bench,
            gpu_gone: Mutex::new(None),
            #[cfg(feature = "liars")]
            lie: None,
        }
    }

    /// Re-runs the leaf of an order and signs what was found.
    pub(crate) async fn answer(self: Arc<Self>, order: AuditOrder) -> ToCoordinator {
        let number = order.order;
        let mut verdict = Verdict {
            job: order.job,
            step: order.step,
            epoch: order.epoch,
            worker: order.worker,
            leaf: order.leaf.digest(),
            finding: Finding::Agrees,
        };
        #[cfg(feature = "liars")]
        let lie = self
            .lie
            .as_ref()
            .and_then(|lie| lie.finding(order.step, &order.leaf));
        #[cfg(not(feature = "liars"))]
        let lie: Option<Finding> = None;
        verdict.finding = match lie {
            Some(finding) => finding,
            None => self.clone().look(order).await,
        };
        ToCoordinator::Verdict {
            order: number,
            verdict: Signed::new(&self.key, &verdict),
        }
    }

    async fn look(self: Arc<Self>, order: AuditOrder) -> Finding {
        let Some(_place) = self.bench.enter() else {
            return Finding::Inconclusive { reason: busy() };
        };
        let (step, started) = (order.step, Instant::now());
        let words = leaf_words(&order.leaf);
        match self.clone().re_run(order).await {
            Ok(finding) => {
                tracing::debug!(
                    "re-ran the {words} in step {step} in {:?}",
                    started.elapsed()
                );
                finding
            }
            Err(error) => {
                tracing::info!("cannot re-run the {words} in step {step}: {error}");
                let reason = error.to_string();
                if error.gpu_is_gone() {
                    let mut gone = self.gpu_gone.lock().unwrap_or_else(PoisonError::into_inner);
                    *gone = Some(error);
                }
                Finding::Inconclusive { reason }
            }
        }
    }

    /// Computes an answer again. One at a time: each takes a model.
    pub(crate) async fn judge(
        self: Arc<Self>,
        audited: AuditedAnswer,
        coordinator: PublicKey,
    ) -> ToCoordinator {
        let order = audited.order;
        let Some(_place) = self.bench.enter() else {
            let verdict = AnswerVerdict::Inconclusive { why: busy() };
            return ToCoordinator::AnswerVerdict { order, verdict };
        };
        let verdict = match self.verdict(audited.receipt, coordinator).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::info!("cannot judge an answer: {error}");
                let why = error.to_string();
                if error.gpu_is_gone() {
                    let mut gone = self.gpu_gone.lock().unwrap_or_else(PoisonError::into_inner);
                    *gone = Some(error);
                }
                AnswerVerdict::Inconclusive { why }
            }
        };
        ToCoordinator::AnswerVerdict { order, verdict }
    }

    async fn verdict(
        &self,
        receipt: Digest,
        coordinator: PublicKey,
    ) -> Result<AnswerVerdict, RuntimeError> {
        let _one_at_a_time = self.bench.computing().await;
        #[cfg(feature = "liars")]
        if let Some(lie) = &self.lie {
            let signed: Signed = self.blobs.get_value(receipt, "signed receipt").await?;
            let invented = signed.open().ok().and_then(|receipt| lie.verdict(&receipt));
            if let Some(verdict) = invented {
                return Ok(verdict);
            }
        }
        let stages = self.bench.stages.clone();
        audit(&self.blobs, &self.device, stages, receipt, coordinator).await
    }

    /// Why no leaf can be re-run here any more: the GPU cannot go on.
    pub(crate) fn gpu_gone(&self) -> Option<RuntimeError> {
        self.gpu_gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn re_run(self: Arc<Self>, order: AuditOrder) -> Result<Finding, RuntimeError> {
        let (spec, step, layers) = (order.spec, order.step, order.leaf.layers);
        let (given, place) = self.fetch(order).await?;
        let mut held = self.bench.job().await;
        if same_job(&mut held, spec).is_none() {
            // The memory of the job before goes first.
            *held = None;
            *held = Some(AuditedJob::fetch(&self.blobs, spec).await?);
        }
        let missing_job = || missing("its job");
        let job = same_job(&mut held, spec).ok_or_else(missing_job)?;
        let inputs = Inputs::join(given, &self.blobs, job, step).await?;
        let base = job.base(&self.blobs, layers).await?;
        let config = job.config.clone();
        let computing = self.bench.computing().await;
        drop(held);
        let auditor = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, even where nobody waits for it any more.
            let _held = (computing, place);
            auditor
                .compute(spec, &inputs, config, &base)
                .map(|ports| (ports, inputs.leaf))
        });
        let (mut computed, leaf) = computed
            .await
            .map_err(|error| RuntimeError::Unsupported(error.to_string()))??;
        computed.sort_by_key(|port| port.kind);
        let mut claimed = leaf.outputs;
        claimed.sort_by_key(|port| port.kind);
        Ok(if computed == claimed {
            Finding::Agrees
        } else {
            Finding::Differs { computed }
        })
    }

    /// Fetches what the worker of a leaf gives. Workers are asked to open their leaves all at once,
    /// and give the inputs when it is their turn: one that stalls delays its own leaves alone.
    pub(super) async fn fetch(&self, order: AuditOrder) -> Result<(Given, Place), RuntimeError> {
        let worker = order.worker;
        let opened = Opened::ask(order).await?;
        let turn = self.bench.turn(worker).await;
        let given = opened.fetch().await?;
        Ok((given, turn.fetched()))
    }

    fn compute(
        &self,
        spec_address: Digest,
        inputs: &Inputs,
        config: Arc<DecoderConfig>,
        base: &ModelBlobs,
    ) -> Result<Vec<Port>, RuntimeError> {
        match inputs.leaf.phase {
            LeafPhase::Reduce => self.reduce(inputs),
            LeafPhase::Update => self.update(inputs),
            LeafPhase::Forward | LeafPhase::Backward => {
                let (spec, layers) = (&inputs.spec, inputs.leaf.layers);
                let (values, positions) = (inputs.values()?, inputs.sequence_len);
                let kept = kept_bytes(spec, &config, layers, positions);
                let (stages, key) = (&self.bench.stages, (spec_address, layers));
                let stage = match stages.take(key) {
                    Some(mut stage) => {
                        stage.refresh(&values)?;
                        stage
                    }
                    None => {
                        stages.make_room(kept.unwrap_or(u64::MAX));
                        let options =
                            words::stage_options(spec, config, layers, &self.device, positions)?;
                        Stage::load(options, base, &values)?
                    }
                };
                let ports = microbatch(&stage, inputs);
                if let Some(bytes) = kept {
                    stages.put(key, bytes, stage);
                }
                ports
            }
        }
    }

    fn reduce(&self, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
        let mut ports = Vec::new();
        for output in &inputs.leaf.outputs {
            let PortKind::Partial { node, part } = output.kind else {
                continue;
            };
            let of = |microbatch: u32| {
                let kind = PortKind::Partial {
                    node: Node::leaf(microbatch),
                    part,
                };
                inputs.tensors(|found| found == kind)
            };
            if (node.start..node.end).any(|microbatch| of(microbatch).is_none()) {
                return Err(missing("a gradient"));
            }
            let leaf = |microbatch: u32| of(microbatch).unwrap_or(&[]);
            let sum = work::PartSum::new(work::reduce(&self.device, node, &leaf)?)?;
            ports.push(sum.port(node, part));
        }
        Ok(ports)
    }

    fn update(&self, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
        let (spec, layers) = (&inputs.spec, inputs.leaf.layers);
        let scalars = inputs
            .scalars
            .as_ref()
            .ok_or_else(|| missing("the scalars"))?;
        let state = inputs.state()?.placed(&self.device)?;
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
            if let Some(total) = self.total(inputs, part, root)? {
                totals.insert(part, total);
            }
        }
        let gradients = work::step_gradients(spec, layers, &self.device, totals)?;
        let held = work::held_names(spec, layers);
        if held.iter().any(|(_, name)| !gradients.contains_key(name)) {
            return Err(missing("a gradient"));
        }
        let updated = work::update(spec, layers, &self.device, &state, &gradients, scalars)?;
        let mut ports = updated.outputs();
        // The norms that the worker reported are part of what it is held to.
        let norms = work::norms(spec, layers, &self.device, &gradients)?;
        if norms.iter().any(|norm| !scalars.norms.contains(norm)) {
            let mut right = scalars.clone();
            right.norms = norms;
            ports.push(Port {
                kind: PortKind::Scalars,
                digest: right.digest(),
            });
        }
        Ok(ports)
    }

    fn total(&self, inputs: &Inputs, part: GradientPart, node: Node) -> Result<Total, KernelError> {
        let kind = PortKind::Partial { node, part };
        if let Some(sum) = inputs.tensors(|found| found == kind) {
            return Ok(Some(sum.to_vec()));
        }
        let Some((left, right)) = node.children() else {
            return Ok(None);
        };
        let (left, right) = (
            self.total(inputs, part, left)?,
            self.total(inputs, part, right)?,
        );
        let (Some(mut sum), Some(right)) = (left, right) else {
            return Ok(None);
        };
        work::add(&self.device, &mut sum, right)?;
        Ok(Some(sum))
    }
}

fn microbatch(stage: &Stage, inputs: &Inputs) -> Result<Vec<Port>, RuntimeError> {
    let (spec, leaf) = (&inputs.spec, &inputs.leaf);
    let batch = inputs
        .microbatch
        .as_ref()
        .ok_or_else(|| missing("its tokens"))?;
    if !stage.is_first() && inputs.hidden().is_none() {
        return Err(missing("its hidden states"));
    }
    let forwarded = work::forward(stage, leaf.layers, &batch.batch, inputs.hidden())?;
    if leaf.phase == LeafPhase::Forward {
        return Ok(vec![forwarded.output]);
    }
    let gradient = inputs.tensors(|kind| matches!(kind, PortKind::Gradient(_)));
    let gradient = gradient
        .and_then(|tensors| tensors.first())
        .map(|tensor| &**tensor);
    let (layers, number) = (leaf.layers, leaf.microbatch);
    let done = work::backward(
        spec,
        stage,
        layers,
        number,
        &batch.batch,
        forwarded,
        gradient,
    )?;
    Ok(done.outputs)
}
