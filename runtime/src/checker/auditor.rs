//! The re-run of a leaf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use concord_kernels::{Device, KernelError, Tensor};
use concord_models::decoder::Stage;
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::rules::leaf_words;
use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{AuditOrder, ToCoordinator};
use concord_proto::tree::Node;
use concord_proto::{Digest, Keypair, Part, Phase, Port, PortKind, PublicKey, Signed};

use super::inputs::{Inputs, missing};
use crate::blobs::Blobs;
use crate::serving::audit;
use crate::worker::fetch_model;
use crate::{RuntimeError, spec as words, work};

/// Re-runs leaves. A worker has one, too: it judges where worker and checker disagree.
pub(crate) struct Auditor {
    device: Device,
    blobs: Blobs,
    key: Keypair,
    /// The stage of the last audit; the next one is often of the same.
    stage: Mutex<Option<CachedStage>>,
    /// Held while an answer is judged.
    answers: tokio::sync::Mutex<()>,
    /// Set once the GPU cannot go on.
    gpu_gone: Mutex<Option<RuntimeError>>,
    #[cfg(feature = "liars")]
    pub(super) lie: Option<crate::liar::Lie>,
}

/// The sum of a part over a node, where all that it is made of is there.
type Total = Option<Vec<Arc<Tensor>>>;

struct CachedStage {
    spec: Digest,
    layers: concord_proto::Layers,
    stage: Stage,
}

impl Auditor {
    pub(crate) fn new(device: Device, blobs: Blobs, key: Keypair) -> Self {
        Self {
            device,
            blobs,
            key,
            stage: Mutex::new(None),
            answers: tokio::sync::Mutex::default(),
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
        let _one_at_a_time = self.answers.lock().await;
        #[cfg(feature = "liars")]
        if let Some(lie) = &self.lie {
            let signed: Signed = self.blobs.get_value(receipt, "signed receipt").await?;
            let invented = signed.open().ok().and_then(|receipt| lie.verdict(&receipt));
            if let Some(verdict) = invented {
                return Ok(verdict);
            }
        }
        audit(&self.blobs, &self.device, receipt, coordinator).await
    }

    /// Why no leaf can be re-run here any more: the GPU cannot go on.
    pub(crate) fn gpu_gone(&self) -> Option<RuntimeError> {
        self.gpu_gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn re_run(self: Arc<Self>, order: AuditOrder) -> Result<Finding, RuntimeError> {
        let inputs = Inputs::fetch(&self.blobs, &order).await?;
        let (config, base) = fetch_model(&self.blobs, &inputs.spec, order.leaf.layers).await?;
        let auditor = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            auditor
                .compute(order.spec, &inputs, config, &base)
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

    fn compute(
        &self,
        spec_digest: Digest,
        inputs: &Inputs,
        config: Arc<concord_models::config::DecoderConfig>,
        base: &dyn concord_models::decoder::TensorSource,
    ) -> Result<Vec<Port>, RuntimeError> {
        match inputs.leaf.phase {
            Phase::Reduce => self.reduce(inputs),
            Phase::Update => self.update(inputs),
            Phase::Forward | Phase::Backward => {
                let layers = inputs.leaf.layers;
                let values = inputs.state_values()?;
                let mut cached = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
                let fits = |c: &&mut CachedStage| (c.spec, c.layers) == (spec_digest, layers);
                if let Some(cached) = cached.as_mut().filter(fits) {
                    cached.stage.refresh(&values)?;
                    return microbatch(&cached.stage, inputs);
                }
                let (spec, len) = (&inputs.spec, inputs.sequence_len);
                let options = words::stage_options(spec, config, layers, &self.device, len)?;
                let stage = Stage::load(options, base, &values)?;
                let ports = microbatch(&stage, inputs);
                *cached = Some(CachedStage {
                    spec: spec_digest,
                    layers,
                    stage,
                });
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
        for part in [Part::Own, Part::TiedEmbed, Part::TiedHead] {
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

    fn total(&self, inputs: &Inputs, part: Part, node: Node) -> Result<Total, KernelError> {
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
    if leaf.phase == Phase::Forward {
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
