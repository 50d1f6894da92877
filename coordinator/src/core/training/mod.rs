//! Jobs of training: what is final of each, and what is being done for it.
//!
//! A [`TrainingJob`] is made of parts that keep their state to themselves and return decisions.
//! What concerns several of them is carried out by the files that extend the job: `inbound`
//! (messages), `advance` (what can be done now), `phases` and `commit` (a step), `planning`,
//! `failures`, and `consequences` (losses, convictions, ends).

mod active_plan;
mod advance;
mod attempt;
mod auditing;
mod auditors;
mod audits;
mod charge;
mod commit;
mod committed;
mod consequences;
mod course;
mod crew;
mod dispute;
mod failures;
mod flush;
mod inbound;
mod invariants;
mod journal;
mod learned_memory;
mod lifecycle;
mod phases;
mod planned_step;
mod planning;
mod queue;
mod roster;
mod saves;
mod secret_draw;
mod waiting;

use concord_proto::client::{JobState, JobSummary, RunOptions, Submission};
use concord_proto::manifest::DataManifest;
use concord_proto::session::{Held, Role};
use concord_proto::{AdapterSpec, BatchPlan, Digest, Domain, JobId, JobSpec, PublicKey, WorkerId};

use super::asker::Asker;
use super::config::Config;
use super::context::EventContext;
use super::event::{CoreEffect, SessionId};
use super::members::PoolMember;
use super::new_job::NewJob;
use super::persisted::{
    Change, JobProgress, PersistedAudit, PersistedAuditor, PersistedJob, PersistedLedger,
    UnopenedAttempt,
};
use super::reported::reported;
use super::time::Time;

use active_plan::{ActivePlan, Planning};
use attempt::Attempt;
use auditors::Auditors;
use audits::LeafAudits;
use committed::Committed;
use crew::Crew;
use flush::Flush;
use journal::Journal;
use roster::Roster;
use saves::Saves;
use waiting::Waits;

pub(super) use audits::Refereed;
pub(super) use queue::JobQueue;

/// A job.
pub(super) struct TrainingJob {
    order: JobOrder,
    state: JobState,
    /// What is final.
    committed: Committed,
    /// What is written down of it, and told.
    journal: Journal,
    planning: Planning,
    /// Who works for it, and what is known of them.
    crew: Crew,
    /// The step being done.
    attempt: Option<Attempt>,
    audits: LeafAudits,
    /// Who draws leaves by secrets of its own.
    roster: Roster,
    auditors: Auditors,
    /// A state on its way into the store.
    flush: Option<Flush>,
    /// States that a client is to get.
    saves: Saves,
    /// What watchers know of what it waits for.
    waits: Waits,
}

/// What was asked for, and what follows from that alone.
struct JobOrder {
    id: JobId,
    /// Its place in the queue.
    number: u32,
    submission: Submission,
    /// Who has submitted it; the first one rules it.
    submitters: Vec<PublicKey>,
    /// Blob address of the spec.
    spec_blob: Digest,
    /// Empty where the job was over when the coordinator started, and this cannot be read any more.
    data: DataManifest,
    /// Made when it is needed.
    batches: Option<BatchPlan>,
}

impl JobOrder {
    fn new(number: u32, new: NewJob) -> Self {
        let spec = &new.submission.spec;
        Self {
            id: spec.id(),
            number,
            spec_blob: Digest::of_value(Domain::Blob, spec),
            batches: None,
            data: new.data,
            submission: new.submission,
            submitters: new.submitters,
        }
    }

    fn spec(&self) -> &JobSpec {
        &self.submission.spec
    }

    fn options(&self) -> &RunOptions {
        &self.submission.options
    }

    /// Which sequences each microbatch takes.
    fn batches(&mut self) -> &mut BatchPlan {
        let (spec, count) = (&self.submission.spec, self.data.sequences.len() as u64);
        self.batches
            .get_or_insert_with(|| BatchPlan::new(spec, count))
    }

    /// Tokens of the sequences of a step.
    fn tokens(&mut self, step: u32) -> u64 {
        let microbatches = 0..self.spec().microbatches_of(step);
        let sequences: Vec<u64> = microbatches
            .flat_map(|microbatch| self.batches().sequences(step, microbatch))
            .collect();
        let of = |index: u64| u64::from(self.data.sequences[index as usize].tokens);
        sequences.into_iter().map(of).sum()
    }

    /// Whether every weight is trained: then gradients are too large to be held for audits.
    fn trains_all(&self) -> bool {
        matches!(self.spec().adapter, AdapterSpec::Full)
    }

    /// Digests of the microbatches of a step, and how many tokens its loss counts.
    fn microbatches(&mut self, step: u32) -> (Vec<Digest>, u64) {
        self.batches();
        let (spec, batches) = (&self.submission.spec, self.batches.as_mut());
        batches.map_or_else(Default::default, |batches| {
            batches.step_digests(spec, &self.data, step)
        })
    }
}

impl TrainingJob {
    pub(super) fn id(&self) -> JobId {
        self.order.id
    }

    pub(super) fn options(&self) -> &RunOptions {
        self.order.options()
    }

    pub(super) fn state(&self) -> &JobState {
        &self.state
    }

    fn spec(&self) -> &JobSpec {
        self.order.spec()
    }

    /// Whether nothing more will be done for it.
    fn is_over(&self) -> bool {
        match self.state {
            JobState::Waiting(_) | JobState::Running | JobState::Auditing => false,
            JobState::Completed { .. } | JobState::Failed(_) | JobState::Cancelled => true,
        }
    }

    /// Whether all steps are final.
    fn all_committed(&self) -> bool {
        self.committed.course().is_over(self.spec())
    }

    /// Steps from the oldest open audit on that may be done before it is closed: what each of them
    /// keeps at every worker is what the plan has memory for.
    fn audit_window(&self, config: &Config) -> u32 {
        let planned = self.planning.active().map(ActivePlan::open_steps);
        let window = config.audit_window.min(planned.unwrap_or(u32::MAX));
        match self.order.trains_all() {
            true => window.min(config.audit_window_full),
            false => window,
        }
    }

    /// Whether a worker has a part in the plan in effect.
    fn is_planned(&self, worker: &WorkerId) -> bool {
        let active = self.planning.active();
        active.is_some_and(|active| active.has(worker))
    }

    /// Whether a worker is asked to store its part of the state.
    fn is_flushed_by(&self, worker: &WorkerId) -> bool {
        self.flush.as_ref().is_some_and(|flush| flush.needs(worker))
    }

    /// Whether a worker still has a part in the plan, the state, or the proof.
    pub(super) fn needs(&self, worker: &WorkerId) -> bool {
        let in_flush = self.is_flushed_by(worker);
        let holds = self.crew.holds(worker, self.committed.steps());
        let is_audited = self.audits.concern(worker);
        self.is_planned(worker) || in_flush || is_audited || (holds && !self.committed.is_stored())
    }

    /// A worker has come that says what it holds.
    pub(super) fn note_held(&mut self, worker: WorkerId, held: &Held) {
        self.crew.note_held(worker, held.step, held.layers);
    }

    /// Persists where the job stands, where that has changed.
    pub(super) fn save_progress(&mut self, context: &mut EventContext) {
        let counts = self.audits.counts();
        let progress = JobProgress {
            state: self.state.clone(),
            epoch: self.planning.epoch(),
            committed: self.committed.steps(),
            agreed: counts.agreed,
            inconclusive: counts.inconclusive,
            set_aside: self.crew.set_aside().collect(),
        };
        self.journal.save(context, progress);
    }

    fn summary(&self) -> JobSummary {
        JobSummary {
            job: self.order.id,
            name: self.options().name.clone(),
            state: self.state.clone(),
            step: self.spec().updates_before(self.committed.steps()),
            steps: self.spec().steps,
            loss: self.committed.last_loss(),
        }
    }

    /// What a member does for the job, in words.
    pub(super) fn part_of(&self, member: &PoolMember) -> String {
        let slot = self.planning.active().and_then(|active| {
            let slot = active.plan().slot(&member.id)?;
            Some((slot, active.plan().stages[slot.stage]))
        });
        let auditing = self.audits.asked_of(&member.id);
        match (slot, member.role) {
            _ if member.draining => "leaves".to_string(),
            (Some((slot, layers)), _) => {
                format!("layers {layers} of pipeline {}", slot.replica)
            }
            (None, _) if auditing > 0 => format!("re-runs {auditing} leaves"),
            (None, Role::Worker) => "spare".to_string(),
            (None, Role::Checker) => "waits for leaves".to_string(),
            (None, Role::Auditor) => "waits for what it draws".to_string(),
        }
    }
}
