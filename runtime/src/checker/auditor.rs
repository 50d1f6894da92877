//! Audits: leaves and answers are computed again, and the verdicts signed.

use std::sync::Arc;

use concord_kernels::Device;
use concord_proto::ledger::{Finding, Verdict};
use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{AuditOrder, ToCoordinator};
use concord_proto::{Digest, Keypair, PublicKey, Signed};

use super::queue::{AuditQueue, busy};
use super::recomputer::Recomputer;
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::faults::Faults;
use crate::serving::judge;

/// Computes leaves and answers again, and signs what it found. A worker has one, too: it gives a
/// second opinion where a coordinator has no referee and no other checker is there.
pub(crate) struct Auditor {
    pub(super) recomputer: Arc<Recomputer>,
    faults: Faults,
}

impl Auditor {
    pub(crate) fn new(
        device: Device,
        blobs: Blobs,
        key: Keypair,
        queue: AuditQueue,
        faults: Faults,
    ) -> Self {
        // What a checker's memory does not hold, it finds out by trying.
        let recomputer = Recomputer::new((device, blobs, key), queue, u64::MAX);
        Self {
            recomputer: Arc::new(recomputer),
            faults,
        }
    }

    /// Computes the leaf of an order again and signs what was found.
    pub(crate) async fn audit_leaf(self: Arc<Self>, order: AuditOrder) -> ToCoordinator {
        let number = order.order;
        let mut verdict = Verdict {
            job: order.job,
            attempt: order.attempt,
            step: order.step,
            epoch: order.epoch,
            worker: order.worker,
            index: order.index,
            leaf: order.leaf.digest(),
            finding: Finding::Agrees,
            trace: Digest::default(),
        };
        let invented = self.faults.before_auditing_leaf(order.step, &order.leaf);
        (verdict.finding, verdict.trace) = match invented {
            Some(finding) => (finding, Digest::default()),
            None => {
                let own = self.recomputer.key.public();
                let found = self.recomputer.clone().recompute(order, &own).await;
                (found.finding, found.trace)
            }
        };
        ToCoordinator::Verdict {
            order: number,
            verdict: Signed::new(&self.recomputer.key, &verdict),
        }
    }

    /// Computes an answer again. One at a time: each takes a model.
    pub(crate) async fn audit_answer(
        self: Arc<Self>,
        audited: AuditedAnswer,
        coordinator: PublicKey,
    ) -> ToCoordinator {
        let order = audited.order;
        let Some(_place) = self.recomputer.queue.enter() else {
            let verdict = AnswerVerdict::Inconclusive { why: busy() };
            return ToCoordinator::AnswerVerdict { order, verdict };
        };
        let verdict = match self.verdict(audited.receipt, coordinator).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::info!("cannot judge an answer: {error}");
                let why = error.to_string();
                self.recomputer.note_failure(error);
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
        let Recomputer {
            device,
            blobs,
            queue,
            ..
        } = &*self.recomputer;
        let _one_at_a_time = queue.computing().await;
        let receipt = judge::fetch_receipt(blobs, receipt).await?;
        if let Some(verdict) = self.faults.before_judging_answer(&receipt) {
            return Ok(verdict);
        }
        let stages = queue.stages.clone();
        judge::audit(blobs, device, stages, receipt, coordinator).await
    }

    /// Why nothing can be computed here any more: the GPU cannot go on.
    pub(crate) fn gpu_gone(&self) -> Option<RuntimeError> {
        self.recomputer.gpu_gone()
    }
}
