//! What is written down of a job and told: its ledger, its events, where it stands.

use std::collections::BTreeSet;

use concord_proto::AttemptId;
use concord_proto::client::JobEvent;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::{Digest, JobId, Signed, WorkerId};

use super::planned_step::PlannedStep;
use super::{Change, CoreEffect, EventContext, JobProgress, PersistedLedger};

/// Entries are numbered, chained and signed; events are numbered.
pub(super) struct Journal {
    job: JobId,
    /// Number of the next entry of the ledger, and digest of the one before.
    next_entry: u64,
    previous: Digest,
    /// Entries of the attempts at steps, by number.
    attempts: Vec<Digest>,
    /// Who the ledger knows, and whether as a checker.
    enrolled: BTreeSet<(WorkerId, bool)>,
    next_event: u64,
    saved: Option<JobProgress>,
}

impl Journal {
    pub(super) fn restore(
        job: JobId,
        ledger: &PersistedLedger,
        events: u64,
        progress: JobProgress,
    ) -> Self {
        Self {
            job,
            next_entry: ledger.entries,
            previous: ledger.last.unwrap_or(job.0),
            attempts: ledger.attempts.clone(),
            enrolled: ledger.enrolled.iter().copied().collect(),
            next_event: events,
            saved: Some(progress),
        }
    }

    /// The number that the next attempt will have.
    pub(super) fn next_attempt(&self) -> u32 {
        self.attempts.len() as u32
    }

    /// Entries of the attempts so far, by number.
    pub(super) fn attempts(&self) -> &[Digest] {
        &self.attempts
    }

    /// Digest of the last entry.
    pub(super) fn head(&self) -> Digest {
        self.previous
    }

    /// Has the next [`Self::save`] persist all: nothing of a new job is persisted yet.
    pub(super) fn forget_saved(&mut self) {
        self.saved = None;
    }

    /// Signs an entry of the ledger and persists it. Gives the signed entry.
    pub(super) fn write(&mut self, context: &mut EventContext, event: LedgerEvent) -> Signed {
        let entry = LedgerEntry {
            number: self.next_entry,
            previous: self.previous,
            event,
        };
        let signed = Signed::new(context.key, &entry);
        (self.next_entry, self.previous) = (entry.number + 1, entry_digest(&signed));
        context.out.persist(Change::Ledger {
            job: self.job,
            number: entry.number,
            entry: signed.clone(),
        });
        signed
    }

    /// Writes that a step starts. Gives the attempt and its signed entry.
    pub(super) fn start(
        &mut self,
        context: &mut EventContext,
        at: PlannedStep,
    ) -> (AttemptId, Signed) {
        let number = self.next_attempt();
        let started = self.write(
            context,
            LedgerEvent::Started {
                attempt: number,
                step: at.step,
                epoch: at.epoch,
            },
        );
        let entry = self.previous;
        self.attempts.push(entry);
        (AttemptId { number, entry }, started)
    }

    /// Writes who a member is before the ledger first speaks of it as a worker or as a checker. A
    /// worker that re-runs a leaf for a dispute is enrolled as both.
    pub(super) fn enrol(&mut self, context: &mut EventContext, worker: &WorkerId, checker: bool) {
        let Some(member) = context.members.get(worker) else {
            return;
        };
        let entry = LedgerEvent::Enrolled {
            worker: *worker,
            device: member.device.name.clone(),
            checker,
        };
        if self.enrolled.insert((*worker, checker)) {
            self.write(context, entry);
        }
    }

    /// Numbers an event, persists it and tells the watchers.
    pub(super) fn publish(&mut self, context: &mut EventContext, event: JobEvent) {
        let (job, number) = (self.job, self.next_event);
        self.next_event += 1;
        context.out.persist(Change::Event {
            job,
            number,
            event: event.clone(),
        });
        context.out.tell(CoreEffect::Publish { job, number, event });
    }

    /// Persists where the job stands, where that has changed.
    pub(super) fn save(&mut self, context: &mut EventContext, progress: JobProgress) {
        if self.saved.as_ref() != Some(&progress) {
            let job = self.job;
            self.saved = Some(progress.clone());
            context.out.persist(Change::Progress { job, progress });
        }
    }
}
