//! The committed state on its way into the store: checkpoints, and states between two plans.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::manifest::{StateEntry, StateManifest};
use concord_proto::{Digest, JobSpec, TensorState, WorkerId};

use super::Time;

/// Bytes that a worker brings into the store in a microsecond, if it is slow: 64 Mbit/s.
const SLOW_BYTES_PER_US: u64 = 8;

/// Most bytes of the state of a trained element: value and two moments.
const ELEMENT_BYTES: u64 = 12;

/// A flush in progress. A job has one at a time.
pub(super) struct Flush {
    since: Time,
    /// Steps done in the state that is flushed.
    step: u32,
    entries: Vec<StateEntry>,
    /// Who flushes, and which tensors it holds.
    wanted: BTreeMap<WorkerId, Vec<u32>>,
    done: BTreeSet<WorkerId>,
    /// The number of the check whether all blobs are there.
    check: Option<u64>,
}

/// What follows from a worker's word that its part is in the store.
pub(super) enum FlushReport {
    /// Others have yet to report, or this report was not asked for.
    Waits,
    /// It names another state than the one that is final after that step.
    OtherState { step: u32 },
    /// All have reported: the store is to be looked through.
    Complete,
}

/// What was found in the store.
pub(super) enum FlushCheck {
    Stored(StateManifest),
    /// This worker said that its part is there, and it is not.
    Missing(WorkerId),
    /// Blobs are missing that no worker was to store.
    Unexplained,
}

impl Flush {
    pub(super) fn new(
        now: Time,
        step: u32,
        entries: Vec<StateEntry>,
        wanted: BTreeMap<WorkerId, Vec<u32>>,
    ) -> Self {
        Self {
            since: now,
            step,
            entries,
            wanted,
            done: BTreeSet::new(),
            check: None,
        }
    }

    pub(super) fn step(&self) -> u32 {
        self.step
    }

    /// Whether the flush cannot end without this worker.
    pub(super) fn needs(&self, worker: &WorkerId) -> bool {
        self.wanted.contains_key(worker) && !self.done.contains(worker)
    }

    /// A worker that has not said that its part is in the store, although `patience` is over, and
    /// the time that the part takes on a slow link.
    pub(super) fn silent(&self, now: Time, spec: &JobSpec, patience: u64) -> Option<WorkerId> {
        let elements = |tensor: &u32| {
            let shape = &spec.trainable[*tensor as usize].shape;
            shape
                .iter()
                .fold(1, |all: u64, &dim| all.saturating_mul(dim))
        };
        let is_late = |held: &[u32]| {
            let all = held.iter().map(elements).fold(0, u64::saturating_add);
            let takes = all.saturating_mul(ELEMENT_BYTES) / SLOW_BYTES_PER_US;
            now.since(self.since) > patience.saturating_add(takes)
        };
        let mut silent = self.wanted.iter();
        let silent = silent.find(|(worker, held)| !self.done.contains(worker) && is_late(held));
        silent.map(|(worker, _)| *worker)
    }

    /// A worker has put its part into the store.
    pub(super) fn report(
        &mut self,
        worker: WorkerId,
        step: u32,
        state: &[TensorState],
    ) -> FlushReport {
        let wanted = self.wanted.get(&worker).filter(|_| self.step == step);
        let Some(tensors) = wanted else {
            return FlushReport::Waits;
        };
        let committed = tensors.iter().map(|&tensor| TensorState {
            tensor,
            entry: self.entries[tensor as usize],
        });
        if !committed.eq(state.iter().copied()) {
            return FlushReport::OtherState { step };
        }
        self.done.insert(worker);
        match self.check.is_none() && self.done.len() == self.wanted.len() {
            true => FlushReport::Complete,
            false => FlushReport::Waits,
        }
    }

    /// Begins the check whether the store has all blobs of the state. Gives their addresses.
    pub(super) fn begin_check(&mut self, check: u64) -> Vec<Digest> {
        self.check = Some(check);
        let blobs: BTreeSet<Digest> = self.entries.iter().flat_map(addresses).collect();
        blobs.into_iter().collect()
    }

    pub(super) fn is_checked_by(&self, check: u64) -> bool {
        self.check == Some(check)
    }

    /// The store was looked through.
    pub(super) fn finish(self, missing: &[Digest]) -> FlushCheck {
        if missing.is_empty() {
            return FlushCheck::Stored(StateManifest {
                step: self.step,
                entries: self.entries,
            });
        }
        let is_missing = |tensor: &u32| {
            let blobs = addresses(&self.entries[*tensor as usize]);
            blobs.iter().any(|digest| missing.contains(digest))
        };
        let mut wanted = self.wanted.iter();
        let at_fault = wanted.find(|(_, held)| held.iter().any(is_missing));
        match at_fault {
            Some((worker, _)) => FlushCheck::Missing(*worker),
            None => FlushCheck::Unexplained,
        }
    }
}

fn addresses(entry: &StateEntry) -> [Digest; 3] {
    [entry.value, entry.first_moment, entry.second_moment]
}
