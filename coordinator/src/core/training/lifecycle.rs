//! A job begins, comes back after a restart, is given up and taken up again.

use concord_proto::client::{JobEvent, JobState, PlanChoice, RunOptions};
use concord_proto::ledger::LedgerEvent;
use concord_proto::{Digest, Domain, PublicKey, canonical};

use super::active_plan::Planning;
use super::auditors::Auditors;
use super::committed::Committed;
use super::crew::Crew;
use super::journal::Journal;
use super::{
    Asker, Change, EventContext, JobOrder, JobProgress, LeafAudits, NewJob, PersistedJob,
    PersistedLedger, Roster, Saves, Time, TrainingJob, Waits,
};

impl TrainingJob {
    /// A job that is new here.
    pub(super) fn new(context: &mut EventContext, number: u32, new: NewJob) -> Self {
        let initial = new.initial.clone();
        let persisted = PersistedJob {
            number,
            new,
            progress: JobProgress {
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
            ledger: PersistedLedger::default(),
            events: 0,
            audits: Vec::new(),
        };
        let mut job = Self::from_persisted(persisted, Time::default());
        job.journal.forget_saved();
        job.planning.set_reason("the first plan".to_string());
        let id = job.order.id;
        context.out.store(canonical::encode(job.spec()));
        job.persist_order(context);
        context.out.persist(Change::Checkpoint {
            job: id,
            state: initial,
        });
        job.journal.write(context, LedgerEvent::Opened { job: id });
        job
    }

    /// A job as it was persisted. Until `back_by` the workers of its last plan are waited for: what
    /// they hold saves the steps since the last checkpoint.
    pub(super) fn from_persisted(persisted: PersistedJob, back_by: Time) -> Self {
        let progress = &persisted.progress;
        let order = JobOrder::new(persisted.number, persisted.new);
        let last_plan = persisted.ledger.plan.iter();
        let last_workers = last_plan.flat_map(|plan| plan.workers()).map(|(_, id)| id);
        let crew = Crew::new(progress.set_aside.iter().copied(), last_workers, back_by);
        let journal = Journal::restore(
            order.id,
            &persisted.ledger,
            persisted.events,
            progress.clone(),
        );
        let audits = LeafAudits::restore(order.id, progress, persisted.audits, &persisted.claims);
        let ledger = persisted.ledger;
        let unopened = (ledger.unopened, &persisted.claims[..]);
        let roster = Roster::restore(order.options(), ledger.auditors.keys().copied());
        let auditors = Auditors::restore(ledger.auditors, ledger.committed, unopened, &audits);
        let reason = "the coordinator was started again".to_string();
        let committed = Committed::restore(
            order.spec(),
            progress.committed,
            persisted.records,
            &persisted.claims,
            persisted.checkpoints,
            ledger.first_part,
        );
        let (options, spec) = (order.options(), order.spec());
        Self {
            saves: Saves::new(options, spec, committed.stored(), committed.end(spec)),
            committed,
            state: progress.state.clone(),
            planning: Planning::new(progress.epoch, reason),
            journal,
            crew,
            attempt: None,
            roster,
            auditors,
            audits,
            flush: None,
            waits: Waits::default(),
            order,
        }
    }

    /// All steps are final and the last state is stored: done, once no audit is open.
    pub(super) fn finish(&mut self, context: &mut EventContext) {
        if !self.audits.are_closed() || !self.auditors.are_idle() {
            self.state = JobState::Auditing;
            return;
        }
        let Some(state) = self.committed.result(self.order.spec()) else {
            let why = "the state with the best evaluation is gone from the store".to_string();
            return self.fail(context, why);
        };
        let state = Digest::of_value(Domain::Blob, state);
        self.drop_checkpoints(context);
        let record = self.committed.head(self.order.id);
        self.journal
            .write(context, LedgerEvent::Completed { record });
        let counts = self.audits.counts();
        self.end(context, JobState::Completed { record, state });
        let completed = JobEvent::Completed {
            record,
            state,
            audits: counts.agreed,
            inconclusive: counts.inconclusive,
        };
        self.journal.publish(context, completed);
    }

    /// A client stops the job. Its checkpoints stay.
    pub(in crate::core) fn cancel(&mut self, context: &mut EventContext) {
        if !self.is_over() {
            self.end(context, JobState::Cancelled);
            self.journal.publish(context, JobEvent::Cancelled);
        }
    }

    /// A client submits a failed or cancelled job again: it goes on where it stopped, with the new
    /// options, behind all others (`number`). A job that is under way stays in its place.
    pub(super) fn revive(
        &mut self,
        context: &mut EventContext,
        number: u32,
        by: Asker,
        mut new: NewJob,
    ) {
        match self.state {
            JobState::Failed(_) | JobState::Cancelled => {}
            JobState::Waiting(_) | JobState::Running | JobState::Auditing => {
                self.join(context, by);
                if by.rules(&self.order.submitters) {
                    self.take_over(context, new.submission.options);
                }
                return;
            }
            JobState::Completed { .. } => return self.join(context, by),
        }
        self.crew.forgive();
        self.audits.forgive();
        // Whoever submits it again, its first submitter rules it, and says how it is run.
        let earlier = std::mem::take(&mut self.order.submitters);
        if !earlier.is_empty() && !by.rules(&earlier) {
            new.submission.options = self.order.submission.options.clone();
        }
        let known = earlier.contains(&by.key);
        let joins = std::mem::take(&mut new.submitters);
        new.submitters = earlier;
        if !known {
            new.submitters.extend(joins);
        }
        self.order = JobOrder::new(number, new);
        let (options, spec) = (self.order.options(), self.order.spec());
        self.saves = Saves::new(
            options,
            spec,
            self.committed.stored(),
            self.committed.end(spec),
        );
        self.planning
            .set_reason("it was submitted again".to_string());
        self.persist_order(context);
        // Published in any case: watchers take an end after which no event comes for the end of the
        // job.
        let what = "to go on".to_string();
        self.state = JobState::Waiting(what.clone());
        self.journal.publish(context, JobEvent::Waiting(what));
    }

    /// A client submits a job that is there: from now on it sees it, too.
    fn join(&mut self, context: &mut EventContext, by: Asker) {
        if !self.order.submitters.contains(&by.key) {
            self.order.submitters.push(by.key);
            self.persist_order(context);
        }
    }

    fn persist_order(&self, context: &mut EventContext) {
        context.out.persist(Change::Job {
            job: self.order.id,
            number: self.order.number,
            submission: Box::new(self.order.submission.clone()),
            submitters: self.order.submitters.clone(),
        });
    }

    /// Who has submitted it; the first one rules it.
    pub(in crate::core) fn submitters(&self) -> &[PublicKey] {
        &self.order.submitters
    }

    /// A client submits a job that is under way: while it has no plan, the next one is made as this
    /// submission asks, because the earlier one may have asked for workers that are gone for good.
    /// Where it has a plan, which a job that goes on has before anybody submits it again, it goes
    /// over to another one that this submission asks for. Rates of audits stay.
    fn take_over(&mut self, context: &mut EventContext, options: RunOptions) {
        let is_planned = self.planning.active().is_some();
        let own = &mut self.order.submission.options;
        // They may come at any time: what was done before is unsettled for them.
        let renamed = own.auditors != options.auditors;
        own.auditors = options.auditors.clone();
        if is_planned {
            if options.plan == PlanChoice::Auto || options.plan == own.plan {
                if renamed {
                    self.persist_order(context);
                }
                return;
            }
            own.plan = options.plan;
            self.planning.choose_anew();
            return self.persist_order(context);
        }
        own.plan = options.plan;
        own.min_workers = options.min_workers;
        own.checkers = options.checkers;
        own.checkpoint_every = options.checkpoint_every;
        own.checkpoints_kept = options.checkpoints_kept;
        own.replay_every = options.replay_every;
        let (options, spec) = (self.order.options(), self.order.spec());
        self.saves = Saves::new(
            options,
            spec,
            self.committed.stored(),
            self.committed.end(spec),
        );
        self.persist_order(context);
    }
}
