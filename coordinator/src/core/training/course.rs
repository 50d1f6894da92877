//! What the losses of a job decide: its end, the state that is kept as the best, its failure.

use concord_proto::client::JobEvent;
use concord_proto::{F32Bits, StepRecord, StepWork};

use super::{EventContext, TrainingJob};

impl TrainingJob {
    /// Fails a job whose losses say that it has diverged, once nobody can be convicted of having
    /// made them up. Says whether the job is held or ended by that.
    pub(super) fn fails_by_its_loss(&mut self, context: &mut EventContext) -> bool {
        let Some(limit) = self.spec().loss_limit else {
            return false;
        };
        if !self.committed.course().has_diverged(self.spec()) {
            return false;
        }
        if !self.audits.are_closed() {
            return true;
        }
        let step = self.spec().updates_before(self.committed.steps());
        let loss = self.committed.last_loss().map_or(f32::NAN, F32Bits::get);
        let times = match limit.updates {
            1 => "once".to_string(),
            times => format!("{times} times in a row"),
        };
        let why = format!(
            "the loss diverged at step {step}: it is {loss}, and above {} \
             (loss_watchdog_threshold) {times}: lower the learning rate, or look at the data",
            limit.threshold.get()
        );
        self.fail(context, why);
        true
    }

    /// Whether the present state is the best so far, the job keeps it, and it is not stored yet:
    /// no step may follow before that, as nobody would hold it any more.
    pub(super) fn best_is_to_be_stored(&self) -> bool {
        let (spec, steps) = (self.spec(), self.committed.steps());
        let is_kept = spec
            .evaluation
            .is_some_and(|evaluation| evaluation.keep_best);
        is_kept && self.committed.best_steps() == Some(steps) && !self.committed.is_stored()
    }

    /// Tells what an evaluation found, and whether the job ends by it.
    pub(super) fn tell_evaluated(&mut self, context: &mut EventContext, event: JobEvent) {
        self.journal.publish(context, event);
        let (spec, course) = (self.order.spec(), self.committed.course());
        let is_early =
            course.is_stopped(spec) && spec.updates_before(self.committed.steps()) < spec.steps;
        let Some((best, best_loss)) = course.best().filter(|_| is_early) else {
            return;
        };
        let stopped = JobEvent::Stopped {
            step: spec.updates_before(self.committed.steps()),
            best_step: spec.updates_before(best),
            best_loss,
        };
        self.journal.publish(context, stopped);
    }

    /// The event that a step is final.
    pub(super) fn event_of(&mut self, record: &StepRecord, micros: u64) -> JobEvent {
        let (tokens, digest) = (self.order.tokens(record.step), record.digest());
        match self.spec().work(record.step) {
            StepWork::Update(step) => JobEvent::Step {
                step,
                loss: record.loss,
                grad_norm: record.grad_norm,
                learning_rate: record.learning_rate,
                tokens,
                micros,
                record: digest,
            },
            StepWork::Evaluation { updates } => JobEvent::Evaluated {
                step: updates,
                loss: record.loss,
                is_best: self.committed.best_steps() == Some(record.step + 1),
                tokens,
                micros,
                record: digest,
            },
        }
    }
}
