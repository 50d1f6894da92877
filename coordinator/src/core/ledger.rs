//! The ledger of a job as it is written: numbered, chained, signed.

use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::{Digest, JobId, Signed, WorkerId};

use super::desk::Desk;
use super::job::Job;
use super::kept::{Change, KeptLedger};

/// Where the next entry goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct LedgerHead {
    next: u64,
    previous: Digest,
}

impl LedgerHead {
    pub(super) fn new(job: JobId, kept: &KeptLedger) -> Self {
        Self {
            next: kept.entries,
            previous: kept.last.unwrap_or(job.0),
        }
    }
}

impl Job {
    /// Signs an entry and keeps it.
    pub(super) fn write(&mut self, desk: &mut Desk, event: LedgerEvent) {
        let entry = LedgerEntry {
            number: self.ledger.next,
            previous: self.ledger.previous,
            event,
        };
        let signed = Signed::new(desk.key, &entry);
        self.ledger = LedgerHead {
            next: entry.number + 1,
            previous: entry_digest(&signed),
        };
        desk.out.keep(Change::Ledger {
            job: self.id,
            number: entry.number,
            entry: signed,
        });
    }

    /// Writes who a member is before the ledger first speaks of it as a worker or as a checker. A
    /// worker that re-runs a leaf for a dispute is enrolled as both.
    pub(super) fn enrol(&mut self, desk: &mut Desk, worker: &WorkerId, checker: bool) {
        let Some(member) = desk.pool.get(worker) else {
            return;
        };
        let entry = LedgerEvent::Enrolled {
            worker: *worker,
            device: member.device.name.clone(),
            checker,
        };
        if self.enrolled.insert((*worker, checker)) {
            self.write(desk, entry);
        }
    }
}
