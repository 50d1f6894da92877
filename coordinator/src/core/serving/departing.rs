//! Workers that are lost, want to leave, or are no longer wanted.

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;

use super::super::desk::Desk;
use super::Deployed;

/// So long a worker that wants to leave waits for another one to load its layers.
const LEAVE_US: u64 = 60_000_000;

impl Deployed {
    /// A worker's session is over.
    pub(in super::super) fn lose(&mut self, desk: &mut Desk, worker: WorkerId, reason: &str) {
        let seat = self.seat(&worker);
        self.loaded.remove(&worker);
        self.told.remove(&worker);
        self.leaving.remove(&worker);
        // Whoever comes back may have been given another version, or more memory.
        self.gave_up.remove(&worker);
        self.room.remove(&worker);
        self.failures.remove(&worker);
        if let Some((index, _)) = seat {
            let reason = format!("worker {}: {reason}", worker.short());
            tracing::warn!(pipeline = index, %reason, "a stage is lost");
            self.fill(desk, index, &reason);
        }
    }

    /// A worker is out of this deployment for good; no proof is at hand.
    pub(super) fn distrust(&mut self, desk: &mut Desk, worker: WorkerId, reason: String) {
        if self.out.contains_key(&worker) {
            return;
        }
        tracing::error!(worker = %worker.short(), %reason, "a worker is not trusted any more");
        let seat = self.seat(&worker);
        self.out.insert(worker, reason.clone());
        self.let_go(desk, &worker);
        if let Some((index, _)) = seat {
            self.fill(desk, index, &format!("worker {}: {reason}", worker.short()));
        }
    }

    /// A worker is out of the pool for good.
    pub(super) fn convict(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        offence: Offence,
        evidence: &str,
    ) {
        if !desk.expel(worker, offence, evidence) {
            return;
        }
        let offence = offence.as_str();
        tracing::error!(worker = %worker.short(), offence, evidence, "convicted");
        self.distrust_judge(desk, worker);
        self.lose(desk, worker, &format!("convicted of {offence}"));
    }

    /// Replaces those who want to leave, once another one has their layers.
    pub(super) fn see_off(&mut self, desk: &mut Desk) {
        for index in 0..self.pipelines.len() {
            let pipeline = &self.pipelines[index];
            let pages = pipeline.pages;
            let mut draining = pipeline.workers.iter().zip(&pipeline.stages);
            let leaver = draining.find(|(id, _)| desk.pool.get(id).is_some_and(|m| m.draining));
            let Some((worker, layers)) = leaver.map(|(id, layers)| (*id, *layers)) else {
                continue;
            };
            let since = *self.leaving.entry(worker).or_insert(desk.now);
            let idle = self.idle(desk);
            let heir = self.substitute(desk, &idle, layers, pages);
            let is_ready = heir.is_none_or(|heir| self.has_loaded(&heir, layers));
            if is_ready || desk.now.since(since) > LEAVE_US {
                self.leaving.remove(&worker);
                self.told.remove(&worker);
                let reason = format!("worker {} leaves", worker.short());
                self.fill(desk, index, &reason);
            }
        }
    }
}
