//! One step, in two phases: all gradients, then all updates; then it is final, or disputed.

use concord_proto::client::JobState;
use concord_proto::session::ToWorker;
use concord_proto::{Leaf, LeafPhase, Signed, WorkerId};

use super::attempt::{Attempt, Basis, Computed, FirstPhase, SecondPhase};
use super::audits::Subject;
use super::charge::Charge;
use super::dispute::{Dispute, DisputeSubject};
use super::planned_step::PlannedStep;
use super::{EventContext, TrainingJob};

impl TrainingJob {
    /// Has all workers start the next step.
    pub(super) fn start_step(&mut self, context: &mut EventContext) {
        let Some(active) = self.planning.active() else {
            return;
        };
        let (job, step) = (self.order.id, self.committed.steps());
        let (epoch, workers) = (active.plan().epoch, active.workers());
        self.state = JobState::Running;
        let (microbatches, targets) = self.order.microbatches(step);
        let (id, started) = self.journal.start(context, PlannedStep { step, epoch });
        let attempt = Attempt::new(context.now, (id, step), microbatches, targets);
        self.attempt = Some(attempt);
        for worker in &workers {
            let message = ToWorker::Step {
                job,
                epoch,
                step,
                started: started.clone(),
            };
            context.send(worker, message);
        }
    }

    /// The step being done, and what its reports are checked against.
    pub(super) fn under_way(&mut self) -> Option<(&mut Attempt, Basis<'_>)> {
        let attempt = self.attempt.as_mut()?;
        let basis = Basis {
            job: self.order.id,
            spec: self.order.spec(),
            active: self.planning.active()?,
            before: self.committed.state_at(attempt.step())?,
            attempts: self.journal.attempts(),
        };
        Some((attempt, basis))
    }

    /// A worker is through with the first phase.
    pub(super) fn on_computed(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        at: PlannedStep,
        computed: Computed,
    ) {
        let epoch = self.planning.epoch();
        let Some((attempt, basis)) = self.under_way() else {
            return;
        };
        // Of an earlier epoch, or of a step that was given up: sent before the worker knew.
        if at.epoch != epoch || at.step != attempt.step() {
            return;
        }
        match attempt.take_computed(context.now, &basis, worker, computed) {
            FirstPhase::Waits => {}
            FirstPhase::Breach(breach) => self.convict(context, Charge::of_breach(breach)),
            FirstPhase::OtherAttempt => {
                let reason = "what it signed names another attempt at the step, or another history";
                self.on_failed(context, worker, epoch, reason.to_string(), false);
            }
            FirstPhase::Dispute(subject) => self.open_dispute(context, subject),
            FirstPhase::Complete(scalars) => {
                let (job, workers) = (basis.job, basis.active.workers());
                for worker in &workers {
                    let scalars = scalars.clone();
                    let message = ToWorker::Scalars {
                        job,
                        epoch,
                        scalars,
                    };
                    context.send(worker, message);
                }
            }
        }
    }

    /// A worker is through with the second phase.
    pub(super) fn on_updated(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        claim: Signed,
        leaves: Vec<Leaf>,
    ) {
        let Some((attempt, basis)) = self.under_way() else {
            return;
        };
        match attempt.take_claim(&basis, worker, claim, leaves) {
            SecondPhase::Waits => {}
            SecondPhase::Breach(breach) => self.convict(context, Charge::of_breach(breach)),
            SecondPhase::Differ(differing) => {
                let subject = DisputeSubject::Differ {
                    between: [differing.first, differing.second],
                    phase: LeafPhase::Update,
                    what: differing.what,
                };
                self.open_dispute(context, subject);
            }
            SecondPhase::Agree => match self.next_record() {
                Some(record) if self.committed.contradicts(&record) => {
                    self.open_dispute(context, DisputeSubject::Record);
                }
                Some(record) => self.commit(context, record),
                None => {
                    let why = "a trained tensor is in no stage of the plan";
                    self.fail(context, why.to_string());
                }
            },
        }
    }

    fn open_dispute(&mut self, context: &mut EventContext, subject: DisputeSubject) {
        let epoch = self.planning.epoch();
        let Some(attempt) = self.attempt.as_mut().filter(|a| !a.is_disputed()) else {
            return;
        };
        let at = PlannedStep {
            step: attempt.step(),
            epoch,
        };
        let (number, leaves) = (attempt.id().number, attempt.disputed_leaves(&subject));
        let leaves = leaves.into_iter().map(|(worker, index, leaf)| Subject {
            at,
            attempt: number,
            worker,
            index,
            leaf,
        });
        let (leaves, signed) = (leaves.collect(), attempt.signed());
        let open = self.audits.dispute(context.now, leaves, signed);
        attempt.open_dispute(Dispute::new(open, subject));
    }

    /// A leaf of the disputed step was re-run and is right.
    pub(super) fn dispute_agrees(&mut self, context: &mut EventContext, number: u64) {
        let attempt = self.attempt.as_mut();
        let Some(subject) = attempt.and_then(|attempt| attempt.note_right(number)) else {
            return;
        };
        match subject {
            // Both were found right, which is impossible: those that re-ran them are no help.
            DisputeSubject::Differ { between, what, .. } => {
                self.set_one_aside(context, between, &what);
            }
            DisputeSubject::NotFinite { what } => self.fail_diverged(context, &what, ""),
            DisputeSubject::Record => self.commit_disputed(context),
        }
    }

    /// A leaf of the disputed step cannot be audited.
    pub(super) fn dispute_undecided(
        &mut self,
        context: &mut EventContext,
        withheld_by: Option<WorkerId>,
    ) {
        let dispute = self.attempt.as_mut().and_then(Attempt::take_dispute);
        let Some((subject, open)) = dispute.map(Dispute::into_parts) else {
            return;
        };
        // What is left of it would hold the next attempt up.
        for number in open {
            self.audits.close(context, number);
        }
        // One worker that opens nothing must not end the job, nor cost another one its seat.
        if let Some(worker) = withheld_by {
            let reason = format!(
                "worker {} gives nobody the inputs of a leaf that the step depends on",
                worker.short()
            );
            return self.set_aside(context, worker, &reason);
        }
        match subject {
            DisputeSubject::Differ { between, what, .. } => {
                self.set_one_aside(context, between, &what);
            }
            DisputeSubject::NotFinite { what } => {
                let why = ". Nobody is there to re-run all that led to it: add a checker";
                self.fail_diverged(context, &what, why);
            }
            DisputeSubject::Record => {
                let step = self.spec().words(self.committed.steps());
                let why = format!(
                    "{step} differs in the record that it had when it was done before, and nobody \
                     is there to re-run it: add a checker"
                );
                self.fail(context, why);
            }
        }
    }

    /// A value of the step is no finite number, whoever computes it.
    fn fail_diverged(&mut self, context: &mut EventContext, what: &str, more: &str) {
        let step = self.spec().words(self.committed.steps());
        let why = format!(
            "{step}: {what}, not a finite number. The training diverges: lower learning_rate, or \
             look at the data of this step{more}"
        );
        self.fail(context, why);
    }

    /// Gives up the audits of a dispute together with the step that it is about.
    pub(super) fn drop_dispute(&mut self, context: &mut EventContext) {
        let dispute = self.attempt.as_mut().and_then(Attempt::take_dispute);
        let open = dispute.map(|dispute| dispute.into_parts().1);
        for number in open.into_iter().flatten() {
            self.audits.close(context, number);
        }
    }

    /// One of two workers is wrong and nothing decides which: the job goes on without the later in
    /// the plan's order. Nobody is convicted. If that was the honest one, the other will differ
    /// from the next worker, too.
    fn set_one_aside(&mut self, context: &mut EventContext, between: [WorkerId; 2], what: &str) {
        let [first, second] = between;
        let reason = format!(
            "workers {} and {} differ in {what}, and nothing decides who is right",
            first.short(),
            second.short()
        );
        self.set_aside(context, second, &reason);
    }
}
