//! Audits: leaves and answers are computed again, and the verdicts signed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use concord_kernels::Device;
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{AuditOrder, ToCoordinator};
use concord_proto::{Digest, JobSpec, Keypair, PublicKey, Signed};
use concord_verify::training::leaf_words;
use tokio::sync::OwnedMutexGuard;

use super::queue::{AuditQueue, LeafPlace, busy, same_job};
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::faults::Faults;
use crate::serving::judge;
use crate::training::audit::{AuditedJob, GivenInputs, Inputs, LeafRerun, OpenedLeaf, missing};

/// Computes leaves and answers again. A worker has one, too, for what a checker and another worker
/// disagree about.
pub(crate) struct Auditor {
    device: Device,
    blobs: Blobs,
    key: Keypair,
    queue: AuditQueue,
    faults: Faults,
    /// Set once the GPU cannot go on.
    gpu_gone: Mutex<Option<RuntimeError>>,
}

impl Auditor {
    pub(crate) fn new(
        device: Device,
        blobs: Blobs,
        key: Keypair,
        queue: AuditQueue,
        faults: Faults,
    ) -> Self {
        Self {
            device,
            blobs,
            key,
            queue,
            faults,
            gpu_gone: Mutex::new(None),
        }
    }

    /// Computes the leaf of an order again and signs what was found.
    pub(crate) async fn audit_leaf(self: Arc<Self>, order: AuditOrder) -> ToCoordinator {
        let number = order.order;
        let mut verdict = Verdict {
            job: order.job,
            step: order.step,
            epoch: order.epoch,
            worker: order.worker,
            leaf: order.leaf.digest(),
            finding: Finding::Agrees,
        };
        let invented = self.faults.before_auditing_leaf(order.step, &order.leaf);
        verdict.finding = match invented {
            Some(finding) => finding,
            None => self.clone().finding(order).await,
        };
        ToCoordinator::Verdict {
            order: number,
            verdict: Signed::new(&self.key, &verdict),
        }
    }

    async fn finding(self: Arc<Self>, order: AuditOrder) -> Finding {
        let Some(_place) = self.queue.enter() else {
            return Finding::Inconclusive { reason: busy() };
        };
        let (step, started) = (order.step, Instant::now());
        let words = leaf_words(&order.leaf);
        match self.clone().compute_leaf(order).await {
            Ok(finding) => {
                let took = started.elapsed();
                tracing::debug!("computed the {words} in step {step} again in {took:?}");
                finding
            }
            Err(error) => {
                tracing::info!("cannot compute the {words} in step {step} again: {error}");
                let reason = error.to_string();
                self.note_failure(error);
                Finding::Inconclusive { reason }
            }
        }
    }

    /// Computes an answer again. One at a time: each takes a model.
    pub(crate) async fn audit_answer(
        self: Arc<Self>,
        audited: AuditedAnswer,
        coordinator: PublicKey,
    ) -> ToCoordinator {
        let order = audited.order;
        let Some(_place) = self.queue.enter() else {
            let verdict = AnswerVerdict::Inconclusive { why: busy() };
            return ToCoordinator::AnswerVerdict { order, verdict };
        };
        let verdict = match self.verdict(audited.receipt, coordinator).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::info!("cannot judge an answer: {error}");
                let why = error.to_string();
                self.note_failure(error);
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
        let _one_at_a_time = self.queue.computing().await;
        let receipt = judge::fetch_receipt(&self.blobs, receipt).await?;
        if let Some(verdict) = self.faults.before_judging_answer(&receipt) {
            return Ok(verdict);
        }
        let stages = self.queue.stages.clone();
        judge::audit(&self.blobs, &self.device, stages, receipt, coordinator).await
    }

    fn note_failure(&self, error: RuntimeError) {
        if error.gpu_is_gone() {
            let mut gone = self.gpu_gone.lock().unwrap_or_else(PoisonError::into_inner);
            *gone = Some(error);
        }
    }

    /// Why nothing can be computed here any more: the GPU cannot go on.
    pub(crate) fn gpu_gone(&self) -> Option<RuntimeError> {
        self.gpu_gone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn compute_leaf(self: Arc<Self>, order: AuditOrder) -> Result<Finding, RuntimeError> {
        let (spec, step, layers) = (order.spec, order.step, order.leaf.layers);
        let job_spec = self.job(spec).await?.1;
        let (given, place) = self.fetch(order, &job_spec).await?;
        let mut held = self.job(spec).await?.0;
        let job = same_job(&mut held, spec).ok_or_else(|| missing("its job"))?;
        let inputs = Inputs::join(given, &self.blobs, job, step).await?;
        let base = job.base(&self.blobs, layers).await?;
        let config = job.config.clone();
        let computing = self.queue.computing().await;
        drop(held);
        let auditor = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, even where nobody waits for it any more.
            let _held = (computing, place);
            let rerun = LeafRerun {
                device: &auditor.device,
                stages: &auditor.queue.stages,
                inputs: &inputs,
            };
            let ports = rerun.compute(spec, config, &base)?;
            Ok::<_, RuntimeError>((ports, inputs.leaf))
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

    /// The job with the spec at this address, which is fetched where another one is held; and its
    /// spec.
    async fn job(
        &self,
        address: Digest,
    ) -> Result<(OwnedMutexGuard<Option<AuditedJob>>, Arc<JobSpec>), RuntimeError> {
        let mut held = self.queue.job().await;
        if same_job(&mut held, address).is_none() {
            // Frees the memory of the job before.
            *held = None;
            *held = Some(AuditedJob::fetch(&self.blobs, address).await?);
        }
        let job = same_job(&mut held, address);
        let spec = job.map(|job| job.spec.clone());
        let spec = spec.ok_or_else(|| missing("its job"))?;
        Ok((held, spec))
    }

    /// Fetches the inputs that the worker of a leaf gives. All workers are asked at once to open
    /// their leaves; the inputs are fetched in turns, so that a worker that stalls delays only its
    /// own leaves.
    pub(super) async fn fetch(
        &self,
        order: AuditOrder,
        spec: &JobSpec,
    ) -> Result<(GivenInputs, LeafPlace), RuntimeError> {
        let worker = order.worker;
        let opened = OpenedLeaf::ask(order, spec, &self.key).await?;
        let turn = self.queue.turn(worker).await;
        let given = opened.fetch().await?;
        Ok((given, turn.fetched()))
    }
}
