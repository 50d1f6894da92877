//! A job: what is committed of it, and what is being done for it.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::client::{JobEvent, JobState, JobSummary, Submission};
use concord_proto::ledger::LedgerEvent;
use concord_proto::manifest::{DataManifest, StateEntry, StateManifest};
use concord_proto::{BatchPlan, Digest, Domain, JobId, JobSpec, Layers, StepRecord, WorkerId};

use super::audit::Audits;
use super::desk::Desk;
use super::event::{Effect, NewJob, Time};
use super::flush::Flush;
use super::kept::{Change, KeptJob, KeptLedger, Progress};
use super::ledger::LedgerHead;
use super::memory::LearnedMemory;
use super::planning::Active;
use super::step::Attempt;
use super::waiting::Waits;
use crate::planner::Device;

/// A job. Invariant: `states` has the state at `committed`, and `checkpoints` the one at 0.
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) number: u32,
    pub(super) submission: Submission,
    /// Blob address of the spec.
    pub(super) spec_blob: Digest,
    pub(super) data: DataManifest,
    pub(super) batches: BatchPlan,
    pub(super) state: JobState,
    pub(super) epoch: u32,
    /// Steps that are final.
    pub(super) committed: u32,
    /// Records by step. Those from `committed` on were final once and must come out equal again.
    pub(super) records: BTreeMap<u32, StepRecord>,
    /// The states after the last and the last but one committed step.
    pub(super) states: BTreeMap<u32, Vec<StateEntry>>,
    /// The states in the store, by steps done.
    pub(super) checkpoints: BTreeMap<u32, StateManifest>,
    pub(super) ledger: LedgerHead,
    /// Who the ledger knows, and whether as a checker.
    pub(super) enrolled: BTreeSet<(WorkerId, bool)>,
    /// The first final step that each worker had a part in.
    pub(super) first_part: BTreeMap<WorkerId, u32>,
    pub(super) events: u64,
    pub(super) audits: Audits,
    /// Workers that this job does without, because a dispute about them could not be decided.
    pub(super) set_aside: BTreeSet<WorkerId>,
    /// Workers that said that the job itself cannot be done, and why.
    pub(super) gave_up: BTreeMap<WorkerId, String>,
    /// Which state each worker holds: steps done and layers.
    pub(super) holding: BTreeMap<WorkerId, (u32, Layers)>,
    /// The plan in effect.
    pub(super) active: Option<Active>,
    /// The step being done.
    pub(super) attempt: Option<Attempt>,
    /// A state on its way into the store.
    pub(super) flush: Option<Flush>,
    /// Workers expected back after a restart, and until when.
    pub(super) expected: (BTreeSet<WorkerId>, Time),
    /// The workers that the last plan was made from.
    pub(super) considered: Option<Vec<Device>>,
    /// What workers that ran out of memory can hold, as far as this job has learned it.
    pub(super) learned: LearnedMemory,
    /// At how many stops of a step each worker was there since it last finished one.
    pub(super) stalls: BTreeMap<WorkerId, u32>,
    /// Why the plan in effect is to go at the next boundary.
    pub(super) handover: Option<String>,
    /// Why the next plan is made.
    pub(super) reason: String,
    /// What watchers know of what it waits for.
    pub(super) waits: Waits,
    saved: Option<Progress>,
}

impl Job {
    /// A job that is new here.
    pub(super) fn new(desk: &mut Desk, number: u32, new: NewJob) -> Self {
        let initial = new.initial.clone();
        let mut job = Self::from_kept(KeptJob {
            number,
            new,
            progress: Progress {
                state: JobState::Waiting(String::new()),
                epoch: 0,
                committed: 0,
                agreed: 0,
                inconclusive: 0,
                set_aside: Vec::new(),
            },
            records: Vec::new(),
            claims: Vec::new(),
            checkpoints: vec![initial.clone()],
            ledger: KeptLedger::default(),
            events: 0,
            audits: Vec::new(),
        });
        job.saved = None;
        job.reason = "the first plan".to_string();
        let id = job.id;
        desk.out.store(concord_proto::canonical::encode(job.spec()));
        desk.out.keep(Change::Job {
            job: id,
            number,
            submission: Box::new(job.submission.clone()),
        });
        desk.out.keep(Change::Checkpoint {
            job: id,
            state: initial,
        });
        job.write(desk, LedgerEvent::Opened { job: id });
        job
    }

    /// A job as it was kept.
    pub(super) fn from_kept(kept: KeptJob) -> Self {
        let spec = &kept.new.submission.spec;
        let id = spec.id();
        let spec_blob = Digest::of_value(Domain::Blob, spec);
        let batches = BatchPlan::new(spec, kept.new.data.sequences.len() as u64);
        let by_step = |state: StateManifest| (state.step, state);
        let checkpoints: BTreeMap<u32, _> = kept.checkpoints.into_iter().map(by_step).collect();
        let mut states: BTreeMap<u32, Vec<StateEntry>> = BTreeMap::new();
        for step in &kept.claims {
            let claims: Vec<_> = step
                .claims
                .iter()
                .filter_map(|(claim, _)| claim.open().ok())
                .collect();
            let claims: Vec<_> = claims.iter().collect();
            let merged = concord_verify::training::merged_state(spec, &claims);
            states.extend(merged.map(|entries| (step.step + 1, entries)));
        }
        let committed = kept.progress.committed;
        let stored = checkpoints.get(&committed);
        states.extend(stored.map(|state| (committed, state.entries.clone())));
        states.retain(|&step, _| step == committed || step + 1 == committed);
        let last_plan = kept.ledger.plan.iter();
        let expected = last_plan.flat_map(|plan| plan.workers()).map(|(_, id)| id);
        let expected = expected.collect();
        Self {
            id,
            number: kept.number,
            spec_blob,
            data: kept.new.data,
            batches,
            state: kept.progress.state.clone(),
            epoch: kept.progress.epoch,
            committed,
            records: kept.records.into_iter().map(|r| (r.step, r)).collect(),
            states,
            checkpoints,
            ledger: LedgerHead::new(id, &kept.ledger),
            enrolled: kept.ledger.enrolled.into_iter().collect(),
            first_part: kept.ledger.first_part,
            events: kept.events,
            audits: Audits::restore(&kept.progress, kept.audits, kept.ledger.judged),
            set_aside: kept.progress.set_aside.iter().copied().collect(),
            gave_up: BTreeMap::new(),
            holding: BTreeMap::new(),
            active: None,
            attempt: None,
            flush: None,
            expected: (expected, Time::default()),
            considered: None,
            learned: LearnedMemory::default(),
            stalls: BTreeMap::new(),
            handover: None,
            reason: "the coordinator was started again".to_string(),
            waits: Waits::default(),
            saved: Some(kept.progress),
            submission: kept.new.submission,
        }
    }

    pub(super) fn spec(&self) -> &JobSpec {
        &self.submission.spec
    }

    /// Whether nothing more will be done for it.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.state,
            JobState::Completed { .. } | JobState::Failed(_) | JobState::Cancelled
        )
    }

    /// Whether all steps are final.
    pub(super) fn all_committed(&self) -> bool {
        self.committed == self.spec().steps
    }

    /// Digest of the last final record, or the job id before the first.
    pub(super) fn head(&self) -> Digest {
        let last = self.committed.checked_sub(1);
        last.and_then(|step| self.records.get(&step))
            .map_or(self.id.0, StepRecord::digest)
    }

    /// Numbers an event, keeps it and tells the watchers.
    pub(super) fn publish(&mut self, desk: &mut Desk, event: JobEvent) {
        let (job, number) = (self.id, self.events);
        self.events += 1;
        let kept = event.clone();
        desk.out.keep(Change::Event {
            job,
            number,
            event: kept,
        });
        desk.out.tell(Effect::Publish { job, number, event });
    }

    /// Keeps where the job stands, where that has changed.
    pub(super) fn save_progress(&mut self, desk: &mut Desk) {
        let progress = Progress {
            state: self.state.clone(),
            epoch: self.epoch,
            committed: self.committed,
            agreed: self.audits.agreed,
            inconclusive: self.audits.inconclusive,
            set_aside: self.set_aside.iter().copied().collect(),
        };
        if self.saved.as_ref() != Some(&progress) {
            let job = self.id;
            self.saved = Some(progress.clone());
            desk.out.keep(Change::Progress { job, progress });
        }
    }

    pub(super) fn summary(&self) -> JobSummary {
        let last = self.committed.checked_sub(1);
        JobSummary {
            job: self.id,
            name: self.submission.options.name.clone(),
            state: self.state.clone(),
            step: self.committed,
            steps: self.spec().steps,
            loss: last
                .and_then(|step| self.records.get(&step))
                .map(|record| record.loss),
        }
    }
}
