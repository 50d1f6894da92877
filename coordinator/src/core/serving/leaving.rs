//! Workers that are lost, want to leave, or are no longer wanted.

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;

use super::{Deployed, EventContext};

/// How long a worker that wants to leave waits for another one to load its layers.
const LEAVE_US: u64 = 60_000_000;

impl Deployed {
    /// A worker's session is over.
    pub(in crate::core) fn lose(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        reason: &str,
    ) {
        let holding = self.pipelines.held_by(&worker);
        self.workers.forget(&worker);
        if let Some(held) = holding {
            let reason = format!("worker {}: {reason}", worker.short());
            tracing::warn!(pipeline = held.pipeline, %reason, "a stage is lost");
            self.fill(context, held.pipeline, &reason);
        }
    }

    /// Excludes a worker from this deployment for good, without a proof.
    pub(super) fn distrust(&mut self, context: &mut EventContext, worker: WorkerId, reason: &str) {
        if !self.workers.bar(worker, reason) {
            return;
        }
        tracing::error!(worker = %worker.short(), %reason, "a worker is not trusted any more");
        let holding = self.pipelines.held_by(&worker);
        self.let_go(context, &worker);
        if let Some(held) = holding {
            let reason = format!("worker {}: {reason}", worker.short());
            self.fill(context, held.pipeline, &reason);
        }
    }

    /// Excludes a worker from the pool for good, for a proven offence.
    pub(super) fn convict(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        offence: Offence,
        evidence: &str,
    ) {
        if !context.expel(worker, offence, evidence) {
            return;
        }
        let offence = offence.as_str();
        tracing::error!(worker = %worker.short(), offence, evidence, "convicted");
        self.audits.distrust(context.now, worker);
        self.lose(context, worker, &format!("convicted of {offence}"));
    }

    /// Replaces those who want to leave, once another one has their layers.
    pub(super) fn see_off(&mut self, context: &mut EventContext) {
        for index in 0..self.pipelines.len() {
            let pipeline = self.pipelines.get(index);
            let pages = pipeline.pages();
            let leaves = |id: &WorkerId| context.members.get(id).is_some_and(|m| m.draining);
            let Some((worker, layers)) = pipeline.holders().find(|(id, _)| leaves(id)) else {
                continue;
            };
            let since = self.workers.leaving_since(context.now, worker);
            let idle = self.idle(context);
            let heir = self.substitute(context, &idle, layers, pages);
            let is_ready = heir.is_none_or(|heir| self.workers.has_loaded(&heir, layers));
            if is_ready || context.now.since(since) > LEAVE_US {
                self.workers.note_left(&worker);
                let reason = format!("worker {} leaves", worker.short());
                self.fill(context, index, &reason);
            }
        }
    }
}
