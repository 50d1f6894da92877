//! Evaluation: the loss on held-out sequences between updates, and what follows from it. It is a
//! step of the chain: what it says is claimed, audited and verified as an update is.

use crate::training::{EvaluationSpec, F32Bits, JobSpec, LossLimit};

/// What a step of the chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepWork {
    /// The update of this number, from 0.
    Update(u32),
    /// The loss on what is held out, after so many updates.
    Evaluation { updates: u32 },
}

impl JobSpec {
    /// What a step does: `every` updates and an evaluation, over and over.
    pub fn work(&self, step: u32) -> StepWork {
        let Some(evaluation) = &self.evaluation else {
            return StepWork::Update(step);
        };
        let Some(step) = step.checked_sub(u32::from(evaluation.at_start)) else {
            return StepWork::Evaluation { updates: 0 };
        };
        let (every, round) = (evaluation.every, u64::from(evaluation.every) + 1);
        let (before, place) = (u64::from(step) / round, u64::from(step) % round);
        let updates = (before * u64::from(every) + place).min(u64::from(self.steps)) as u32;
        match place < u64::from(every) && updates < self.steps {
            true => StepWork::Update(updates),
            false => StepWork::Evaluation { updates },
        }
    }

    /// Updates before a step.
    pub fn updates_before(&self, step: u32) -> u32 {
        match self.work(step) {
            StepWork::Update(updates) | StepWork::Evaluation { updates } => updates,
        }
    }

    /// Steps of the chain, if no patience ends it before: all updates and evaluations.
    pub fn chain_steps(&self) -> u32 {
        let evaluations = self.evaluation.map_or(0, |evaluation| {
            u32::from(evaluation.at_start) + self.steps.div_ceil(evaluation.every.max(1))
        });
        self.steps.saturating_add(evaluations)
    }

    /// Whether a step is an evaluation.
    pub fn is_evaluation(&self, step: u32) -> bool {
        matches!(self.work(step), StepWork::Evaluation { .. })
    }

    /// Whether the loss of a step decides which state is the result, or where the job ends: that of
    /// an evaluation after an update, where the job keeps the best state or has patience. All
    /// leaves of such a step are drawn for audit ([`crate::auditor::drawn`]).
    pub fn decides(&self, step: u32) -> bool {
        let of_its_loss = |of: &EvaluationSpec| of.keep_best || of.patience.is_some();
        let is_after_updates =
            matches!(self.work(step), StepWork::Evaluation { updates } if updates > 0);
        is_after_updates && self.evaluation.as_ref().is_some_and(of_its_loss)
    }

    /// A step of the chain, for people, who count updates from 1: "step 8", or "the evaluation
    /// after step 8".
    pub fn words(&self, step: u32) -> String {
        match self.work(step) {
            StepWork::Update(update) => format!("step {}", update + 1),
            StepWork::Evaluation { updates } => format!("the evaluation after step {updates}"),
        }
    }

    /// Microbatches of a step, over all replicas.
    pub fn microbatches_of(&self, step: u32) -> u32 {
        match (self.work(step), &self.evaluation) {
            (StepWork::Evaluation { .. }, Some(evaluation)) => evaluation.microbatches(),
            _ => self.microbatches,
        }
    }

    /// The microbatches of a step that a replica computes, whose run of those of an update is
    /// `start..end`: of an evaluation as large a share, which may be empty.
    pub fn run_of(&self, step: u32, start: u32, end: u32) -> std::ops::Range<u32> {
        let (count, of) = (self.microbatches_of(step), self.microbatches.max(1));
        let share = |at: u32| (u64::from(at) * u64::from(count) / u64::from(of)) as u32;
        share(start)..share(end)
    }
}

/// What the losses of the steps so far say of a job: a pure function of its chain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    steps: u32,
    /// The evaluation with the lowest loss after an update, as a step of the chain; of several the
    /// first.
    best: Option<(u32, F32Bits)>,
    /// Evaluations in a row without a better loss.
    idle: u32,
    /// Updates in a row above the limit.
    above: u32,
}

impl Course {
    /// The course after steps with these losses.
    pub fn of(spec: &JobSpec, losses: impl IntoIterator<Item = F32Bits>) -> Self {
        let mut course = Self::default();
        losses.into_iter().for_each(|loss| course.note(spec, loss));
        course
    }

    /// Takes in the loss of the next step.
    pub fn note(&mut self, spec: &JobSpec, loss: F32Bits) {
        let step = self.steps;
        self.steps += 1;
        match spec.work(step) {
            StepWork::Update(_) => {
                let is_above = |limit: LossLimit| loss.get() > limit.threshold.get();
                self.above = match spec.loss_limit.is_some_and(is_above) {
                    true => self.above + 1,
                    false => 0,
                };
            }
            // What the training has not changed is none of its results.
            StepWork::Evaluation { updates: 0 } => {}
            StepWork::Evaluation { .. } => self.evaluated(spec, step, loss),
        }
    }

    fn evaluated(&mut self, spec: &JobSpec, step: u32, loss: F32Bits) {
        let patience = spec.evaluation.and_then(|evaluation| evaluation.patience);
        let threshold = patience.map_or(0.0, |patience| f64::from(patience.threshold.get()));
        let gain = self
            .best
            .map(|(_, best)| f64::from(best.get()) - f64::from(loss.get()));
        self.idle = match gain {
            Some(gain) if gain <= threshold => self.idle + 1,
            _ => 0,
        };
        if gain.is_none_or(|gain| gain > 0.0) {
            self.best = Some((step, loss));
        }
    }

    /// The step of the chain whose evaluation has the lowest loss, and that loss.
    pub fn best(&self) -> Option<(u32, F32Bits)> {
        self.best
    }

    /// Whether its patience ends the job here.
    pub fn is_stopped(&self, spec: &JobSpec) -> bool {
        let patience = spec.evaluation.and_then(|evaluation| evaluation.patience);
        patience.is_some_and(|patience| self.idle >= patience.evaluations)
    }

    /// Whether no step is left.
    pub fn is_over(&self, spec: &JobSpec) -> bool {
        self.steps >= spec.chain_steps() || self.is_stopped(spec)
    }

    /// Whether the losses of the last updates are above the limit of the job.
    pub fn has_diverged(&self, spec: &JobSpec) -> bool {
        spec.loss_limit
            .is_some_and(|limit| self.above >= limit.updates)
    }

    /// How many steps make the state that is the result, where all are done.
    pub fn result_steps(&self, spec: &JobSpec) -> u32 {
        let keeps = spec
            .evaluation
            .is_some_and(|evaluation| evaluation.keep_best);
        match self.best.filter(|_| keeps) {
            Some((step, _)) => step + 1,
            None => self.steps,
        }
    }
}
