//! States that a client gets: they stay in the store until it says that it has them. Checkpoints
//! give way to newer ones; those that are kept for replay wait until the job is done.

use std::collections::BTreeSet;

use concord_proto::client::RunOptions;
use concord_proto::{JobSpec, StepWork};

/// Most states that wait for a client, whatever it asks for: they have values and moments.
const WAITING_MAX: usize = 8;

/// The states in the store that wait for a client, by their steps of the chain.
#[derive(Debug)]
pub(super) struct Saves {
    /// Updates between two of them.
    every: u32,
    /// Most that wait: older ones give way. 0 where no client wants any.
    most: usize,
    waiting: BTreeSet<u32>,
    /// Updates between two states that are kept for replay; 0 where none are.
    replay_every: u32,
    /// Those that are kept for replay.
    kept: BTreeSet<u32>,
}

impl Saves {
    /// Those of a job, of which `end` steps were done where no step follows. Which of the states in
    /// `stored` the client has is not persisted, so all of them wait for it again.
    pub(super) fn new(
        options: &RunOptions,
        spec: &JobSpec,
        stored: impl Iterator<Item = u32>,
        end: Option<u32>,
    ) -> Self {
        let mut saves = Self {
            every: options.checkpoint_every,
            most: (options.checkpoints_kept as usize).min(WAITING_MAX),
            waiting: BTreeSet::new(),
            replay_every: options.replay_every,
            kept: BTreeSet::new(),
        };
        for steps in stored {
            saves.add(spec, steps, end == Some(steps));
        }
        saves
    }

    /// Whether the state after `steps` steps of the chain is to be in the store before it is lost:
    /// as a checkpoint, or for replay.
    pub(super) fn is_due(&self, spec: &JobSpec, steps: u32, is_end: bool) -> bool {
        self.is_checkpoint(spec, steps, is_end) || self.is_kept(spec, steps)
    }

    /// Whether a segment of the job is replayed from this state: that of an update, every so many.
    /// None follows from the last one.
    fn is_kept(&self, spec: &JobSpec, steps: u32) -> bool {
        let work = steps.checked_sub(1).map(|step| spec.work(step));
        let Some(StepWork::Update(update)) = work else {
            return false;
        };
        let updates = update + 1;
        let is_multiple = self.replay_every > 0 && updates.is_multiple_of(self.replay_every);
        is_multiple && updates < spec.steps
    }

    /// Whether the state after `steps` steps of the chain is a checkpoint: that of an update, every
    /// so many, and the last one; where an evaluation ends the job early (`is_end`), that state
    /// after it.
    fn is_checkpoint(&self, spec: &JobSpec, steps: u32, is_end: bool) -> bool {
        let is_multiple = |updates: u32| self.every > 0 && updates.is_multiple_of(self.every);
        let is_due = match steps.checked_sub(1).map(|step| spec.work(step)) {
            None => false,
            Some(StepWork::Update(update)) => {
                let updates = update + 1;
                updates == spec.steps || is_multiple(updates)
            }
            Some(StepWork::Evaluation { updates }) => {
                is_end && updates < spec.steps && !is_multiple(updates)
            }
        };
        self.most > 0 && is_due
    }

    /// A state is in the store. Says whether the client is to be told: of those for replay it knows
    /// by itself, once the job is done.
    pub(super) fn add(&mut self, spec: &JobSpec, steps: u32, is_end: bool) -> bool {
        if self.is_kept(spec, steps) {
            self.kept.insert(steps);
        }
        let is_due = self.is_checkpoint(spec, steps, is_end);
        if is_due {
            self.waiting.insert(steps);
            while self.waiting.len() > self.most {
                self.waiting.pop_first();
            }
        }
        is_due
    }

    /// The client has the state after so many updates. What it fetched before the job was done
    /// (`is_done`) was a checkpoint.
    pub(super) fn fetched(&mut self, spec: &JobSpec, updates: u32, is_done: bool) {
        let is_other = |steps: &u32| spec.updates_before(*steps) != updates;
        self.waiting.retain(is_other);
        self.kept.retain(|steps| !is_done || is_other(steps));
    }

    /// The job goes back to `steps` steps.
    pub(super) fn rewind(&mut self, steps: u32) {
        self.waiting.retain(|&saved| saved <= steps);
        self.kept.retain(|&saved| saved <= steps);
    }

    /// Whether the state after `steps` steps waits for the client.
    pub(super) fn wait_for(&self, steps: u32) -> bool {
        self.waiting.contains(&steps) || self.kept.contains(&steps)
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::client::PlanChoice;
    use concord_proto::{
        AdapterSpec, Digest, EvaluationSpec, HeldOut, MomentFormat, Optimizer, Order,
        PrecisionSpec, RateSchedule, Regularization, ScheduleKind, UpdateRule,
    };

    use super::*;

    /// A job of 10 updates, with an evaluation after every `evaluations` of them.
    fn spec(evaluations: Option<u32>) -> JobSpec {
        let one = 1.0.into();
        JobSpec {
            arithmetic: concord_proto::ARITHMETIC_VERSION,
            model: Digest::default(),
            data: Digest::default(),
            adapter: AdapterSpec::Full,
            initial_state: Digest::default(),
            trainable: Vec::new(),
            layers: 1,
            order: Order::AsGiven,
            micro_batch_size: 1,
            microbatches: 1,
            steps: 10,
            optimizer: Optimizer {
                rule: UpdateRule::AdamW {
                    beta1: one,
                    beta2: one,
                    epsilon: one,
                    moments: MomentFormat::F32,
                },
                weight_decay: one,
                max_grad_norm: one,
            },
            schedule: RateSchedule {
                b_ratio: None,
                kind: ScheduleKind::Constant,
                learning_rate: one,
                warmup_steps: 0,
            },
            precision: PrecisionSpec {
                weights: 16,
                activations: 16,
            },
            loss_limit: None,
            evaluation: evaluations.map(|every| EvaluationSpec {
                held_out: HeldOut::Last { sequences: 1 },
                micro_batch_size: 1,
                every,
                at_start: true,
                patience: None,
                keep_best: false,
            }),
            regularization: Regularization::default(),
        }
    }

    fn options(every: u32, most: u32) -> RunOptions {
        RunOptions {
            name: String::new(),
            plan: PlanChoice::Auto,
            min_workers: 1,
            checkers: 0,
            checkpoint_every: every,
            checkpoints_kept: most,
            replay_every: 0,
            audit_rate: 0,
            recheck_rate: 0,
            recompute: false,
            auditors: Vec::new(),
        }
    }

    fn saves(spec: &JobSpec, every: u32, most: u32) -> Saves {
        Saves::new(&options(every, most), spec, [0, 4, 6].into_iter(), None)
    }

    #[test]
    fn the_newest_wait_until_they_are_fetched() {
        let spec = spec(None);
        let mut saves = saves(&spec, 4, 2);
        assert!(saves.wait_for(4), "it is not known that the client has it");
        assert!(!saves.wait_for(6), "it was stored for other reasons");
        let added = [8, 9, 10].map(|steps| saves.add(&spec, steps, steps == 10));
        assert_eq!(added, [true, false, true]);
        assert!(!saves.wait_for(4) && saves.wait_for(8) && saves.wait_for(10));
        saves.fetched(&spec, 10, false);
        assert!(saves.wait_for(8) && !saves.wait_for(10));
        saves.rewind(7);
        assert!(!saves.wait_for(8));
    }

    #[test]
    fn evaluations_are_no_updates() {
        // The chain: an evaluation, 5 updates, an evaluation, 5 updates, an evaluation.
        let spec = spec(Some(5));
        let mut saves = saves(&spec, 4, 9);
        let due: Vec<u32> = (0..=13)
            .filter(|&steps| saves.is_due(&spec, steps, steps == 13))
            .collect();
        assert_eq!(due, [5, 10, 12], "the updates 4, 8 and 10");
        assert!(due.into_iter().all(|steps| saves.add(&spec, steps, false)));
        saves.fetched(&spec, 8, false);
        assert!(saves.wait_for(5) && !saves.wait_for(10) && saves.wait_for(12));
    }

    /// The chain: an evaluation, 3 updates, an evaluation, 3 updates, an evaluation that ends it.
    #[test]
    fn a_job_that_ends_early_saves_its_last_state() {
        let spec = spec(Some(3));
        let saved = |every: u32| -> Vec<u32> {
            let mut saves = saves(&spec, every, 9);
            let steps = (1..=9).filter(|&steps| saves.add(&spec, steps, steps == 9));
            steps.map(|steps| spec.updates_before(steps)).collect()
        };
        assert_eq!(
            saved(4),
            [4, 6],
            "the last one was not due for another reason"
        );
        assert_eq!(
            saved(2),
            [2, 4, 6],
            "the last one was saved before the evaluation"
        );
        let again = Saves::new(&options(4, 9), &spec, [9].into_iter(), Some(9));
        assert!(again.wait_for(9), "also after a restart");
    }

    /// The chain: an evaluation, 5 updates, an evaluation, 5 updates, an evaluation.
    #[test]
    fn states_for_replay_stay_until_the_job_is_done() {
        let spec = spec(Some(5));
        let mut options = options(4, 1);
        options.replay_every = 2;
        let mut saves = Saves::new(&options, &spec, [3].into_iter(), None);
        assert!(saves.wait_for(3), "also after a restart");
        let due = |saves: &Saves| -> Vec<u32> {
            let steps = 0..=13;
            steps.filter(|&s| saves.is_due(&spec, s, s == 13)).collect()
        };
        assert_eq!(
            due(&saves),
            [3, 5, 8, 10, 12],
            "no step follows from the last one"
        );
        let told = [5, 8, 10, 12].map(|steps| saves.add(&spec, steps, false));
        assert_eq!(
            told,
            [true, false, true, true],
            "checkpoints alone are told"
        );
        let waits =
            |saves: &Saves| -> Vec<u32> { (0..=13).filter(|&s| saves.wait_for(s)).collect() };
        assert_eq!(
            waits(&saves),
            [3, 5, 8, 10, 12],
            "one checkpoint alone would stay"
        );
        saves.fetched(&spec, 4, false);
        saves.fetched(&spec, 10, false);
        assert_eq!(waits(&saves), [3, 5, 8, 10]);
        saves.fetched(&spec, 4, true);
        assert_eq!(waits(&saves), [3, 8, 10]);
        saves.rewind(9);
        assert_eq!(waits(&saves), [3, 8]);
    }

    #[test]
    fn where_no_client_wants_any_none_is_due() {
        let spec = spec(None);
        let none = saves(&spec, 1, 0);
        assert!((0..=10).all(|steps| !none.is_due(&spec, steps, true) && !none.wait_for(steps)));
        let last = saves(&spec, 0, 9);
        assert!(!last.is_due(&spec, 5, false) && last.is_due(&spec, 10, true));
    }
}
