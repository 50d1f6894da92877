//! The committed state on its way into the store: checkpoints, and states between two plans.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::ledger::Offence;
use concord_proto::manifest::{StateEntry, StateManifest};
use concord_proto::session::ToWorker;
use concord_proto::{Digest, TensorState, WorkerId, canonical};
use concord_verify::training::held_tensors;

use super::desk::Desk;
use super::event::Effect;
use super::job::Job;
use super::kept::Change;

/// How long a worker is left alone that says that its state is stored when it is not.
const LIAR_PAUSE_US: u64 = 60_000_000;

/// A flush in progress. One at a time.
pub(super) struct Flush {
    /// Steps done in the state that is flushed.
    step: u32,
    entries: Vec<StateEntry>,
    /// Who flushes, and which tensors it holds.
    wanted: BTreeMap<WorkerId, Vec<u32>>,
    done: BTreeSet<WorkerId>,
    /// The number of the check whether all blobs are there.
    check: Option<u64>,
}

impl Flush {
    /// Whether the flush cannot end without this worker.
    pub(super) fn needs(&self, worker: &WorkerId) -> bool {
        self.wanted.contains_key(worker) && !self.done.contains(worker)
    }
}

impl Job {
    /// Brings the committed state into the store, unless that is under way. Says whether it is now
    /// under way: not, where the workers that are left do not hold all of it.
    pub(super) fn flush_committed(&mut self, desk: &mut Desk) -> bool {
        let step = self.committed;
        if self.flush.as_ref().is_some_and(|flush| flush.step == step) {
            return true;
        }
        // After a crash between keeping a step and telling so, all workers are one step behind.
        for step in [Some(step), step.checked_sub(1)].into_iter().flatten() {
            let Some(entries) = self.states.get(&step).cloned() else {
                continue;
            };
            let Some(wanted) = self.covering(desk, step) else {
                continue;
            };
            let pauses = |id: &&WorkerId| {
                let member = desk.pool.get(id);
                member.is_some_and(|member| member.unfit_until > desk.now)
            };
            if let Some(worker) = wanted.keys().find(pauses).copied() {
                // It could not store its state just now; going back would lose steps.
                let trouble = desk.pool.get(&worker).map_or("", |member| &member.trouble);
                let who = worker.short();
                let what = format!("worker {who} to store its state; the last time: {trouble}");
                self.wait_for(desk, what);
                return true;
            }
            if step < self.committed {
                self.rewind_to(desk, step, &entries);
            }
            let job = self.id;
            for worker in wanted.keys() {
                desk.send(worker, ToWorker::Flush { job });
            }
            let done = BTreeSet::new();
            let check = None;
            self.flush = Some(Flush {
                step,
                entries,
                wanted,
                done,
                check,
            });
            return true;
        }
        false
    }

    /// Workers that together hold the state after `step` steps, each with tensors of its own.
    fn covering(&self, desk: &Desk, step: u32) -> Option<BTreeMap<WorkerId, Vec<u32>>> {
        let mut missing: BTreeSet<u32> = (0..self.spec().trainable.len() as u32).collect();
        let mut wanted = BTreeMap::new();
        for (worker, (held, layers)) in &self.holding {
            if *held != step || desk.pool.session(worker).is_none() {
                continue;
            }
            let tensors = held_tensors(self.spec(), *layers);
            let before = missing.len();
            tensors.iter().for_each(|tensor| {
                missing.remove(tensor);
            });
            if missing.len() < before {
                wanted.insert(*worker, tensors);
            }
        }
        missing.is_empty().then_some(wanted)
    }

    /// A worker has put its part into the store.
    pub(super) fn on_flushed(
        &mut self,
        desk: &mut Desk,
        worker: WorkerId,
        step: u32,
        state: &[TensorState],
    ) {
        let Some(flush) = self.flush.as_mut().filter(|flush| flush.step == step) else {
            return;
        };
        let Some(tensors) = flush.wanted.get(&worker) else {
            return;
        };
        let committed = tensors.iter().map(|&tensor| TensorState {
            tensor,
            entry: flush.entries[tensor as usize],
        });
        if !committed.eq(state.iter().copied()) {
            let evidence = format!("it stored another state than the one committed at {step}");
            self.convict(desk, worker, Offence::WrongClaim, evidence, None);
            return;
        }
        flush.done.insert(worker);
        if flush.check.is_none() && flush.done.len() == flush.wanted.len() {
            let check = self.audits.next_number();
            let addresses = |e: &StateEntry| [e.value, e.first_moment, e.second_moment];
            let blobs: BTreeSet<Digest> = flush.entries.iter().flat_map(addresses).collect();
            flush.check = Some(check);
            let blobs = blobs.into_iter().collect();
            desk.out.tell(Effect::CheckBlobs { check, blobs });
        }
    }

    /// The store was looked through for the blobs of the flush.
    pub(super) fn on_blobs_checked(&mut self, desk: &mut Desk, check: u64, missing: &[Digest]) {
        let Some(flush) = self.flush.take_if(|flush| flush.check == Some(check)) else {
            return;
        };
        if missing.is_empty() {
            self.add_checkpoint(desk, flush.step, flush.entries);
            return;
        }
        let is_missing = |tensor: &u32| {
            let entry = &flush.entries[*tensor as usize];
            [entry.value, entry.first_moment, entry.second_moment]
                .iter()
                .any(|digest| missing.contains(digest))
        };
        let at_fault = flush
            .wanted
            .iter()
            .find(|(_, held)| held.iter().any(is_missing));
        if let Some((&worker, _)) = at_fault {
            desk.pool.pause(desk.now, &worker, LIAR_PAUSE_US);
            self.lose(
                desk,
                worker,
                "it said that its state is stored, and it is not",
            );
        }
    }

    fn add_checkpoint(&mut self, desk: &mut Desk, step: u32, entries: Vec<StateEntry>) {
        let state = StateManifest { step, entries };
        let job = self.id;
        desk.out.store(canonical::encode(&state));
        desk.out.keep(Change::Checkpoint {
            job,
            state: state.clone(),
        });
        self.checkpoints.insert(step, state);
        self.drop_old_checkpoints(desk);
    }

    /// A conviction goes back to the checkpoint before the culprit's first part, or before the
    /// oldest open audit: other old ones, but for the start, are never needed again.
    fn drop_old_checkpoints(&mut self, desk: &mut Desk) {
        let floor = self.audits.oldest_step().unwrap_or(self.committed);
        let targets = self.first_part.values().copied().chain([floor]);
        let needed: BTreeSet<u32> = targets.filter_map(|s| self.newest_checkpoint(s)).collect();
        let old = |step: &u32| *step > 0 && *step < floor && !needed.contains(step);
        let steps: Vec<u32> = self.checkpoints.keys().copied().filter(old).collect();
        if !steps.is_empty() {
            self.checkpoints.retain(|step, _| !old(step));
            let oldest = self.checkpoints.keys().copied().find(|&step| step > 0);
            let from = oldest.unwrap_or(0);
            self.records.retain(|step, _| *step + 1 >= from);
            let job = self.id;
            desk.out.keep(Change::DropCheckpoints { job, steps });
        }
    }

    /// Steps done at the newest checkpoint that has at most `steps`.
    pub(super) fn newest_checkpoint(&self, steps: u32) -> Option<u32> {
        self.checkpoints
            .range(..=steps)
            .next_back()
            .map(|(&s, _)| s)
    }

    /// Whether the state of now is due in the store.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let every = self.submission.options.checkpoint_every;
        self.all_committed() || (every > 0 && self.committed.is_multiple_of(every))
    }
}
