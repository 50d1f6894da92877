//! The chain of a job with evaluations, and what its losses decide.

mod messages;

use concord_proto::{
    BatchPlan, Course, EvaluationSpec, F32Bits, HeldOut, JobSpec, LossLimit, Order, Patience,
    StepWork, held_out,
};
use messages::Source;

fn spec(steps: u32, every: u32, at_start: bool) -> JobSpec {
    JobSpec {
        order: Order::Shuffled { seed: 3 },
        micro_batch_size: 2,
        microbatches: 2,
        steps,
        loss_limit: None,
        evaluation: Some(EvaluationSpec {
            held_out: HeldOut::Drawn {
                sequences: 5,
                seed: 3,
            },
            micro_batch_size: 2,
            every,
            at_start,
            patience: None,
            keep_best: false,
        }),
        ..Source::new(1).spec()
    }
}

#[test]
fn every_update_is_there_once_and_the_last_step_is_an_evaluation() {
    for (steps, every) in [(1, 1), (4, 2), (5, 2), (7, 9), (12, 1)] {
        for at_start in [false, true] {
            let spec = spec(steps, every, at_start);
            let work: Vec<StepWork> = (0..spec.chain_steps()).map(|s| spec.work(s)).collect();
            let mut updates = 0;
            for (step, work) in (0..).zip(&work) {
                assert_eq!(spec.updates_before(step), updates);
                match work {
                    StepWork::Update(update) => {
                        assert_eq!(*update, updates);
                        updates += 1;
                    }
                    StepWork::Evaluation { updates: before } => {
                        assert_eq!(*before, updates);
                        let is_due = updates % every == 0 || updates == steps;
                        assert!(is_due, "{steps} by {every}: {updates}");
                    }
                }
            }
            assert_eq!(updates, steps);
            let last = spec.chain_steps() - 1;
            assert!(spec.is_evaluation(last));
            assert_eq!(spec.updates_before(spec.chain_steps()), steps);
        }
    }
}

#[test]
fn what_is_held_out_is_evaluated_once_and_never_learnt() {
    let spec = spec(4, 2, true);
    let held = held_out(3, 5, 12);
    assert_eq!(held.len(), 5);
    let mut plan = BatchPlan::new(&spec, 12);
    for step in 0..spec.chain_steps() {
        let microbatches = 0..spec.microbatches_of(step);
        let taken: Vec<u32> = microbatches
            .flat_map(|microbatch| plan.sequences(step, microbatch))
            .map(|index| index as u32)
            .collect();
        match spec.is_evaluation(step) {
            true => assert_eq!(taken, held),
            false => assert!(taken.iter().all(|index| !held.contains(index)), "{taken:?}"),
        }
    }
}

/// Steps that decide about the result, and the words for each.
#[test]
fn a_loss_decides_where_something_follows_from_it() {
    let with = |alter: &dyn Fn(&mut EvaluationSpec)| {
        let mut spec = spec(3, 2, true);
        alter(spec.evaluation.as_mut().unwrap());
        spec
    };
    let deciding = |spec: &JobSpec| -> Vec<u32> {
        (0..spec.chain_steps())
            .filter(|&step| spec.decides(step))
            .collect()
    };
    let patience = Patience {
        evaluations: 1,
        threshold: F32Bits::from(0.0),
    };
    let found = [
        deciding(&with(&|_| ())),
        deciding(&with(&|of| of.keep_best = true)),
        deciding(&with(&|of| of.patience = Some(patience))),
    ];
    assert_eq!(found, [vec![], vec![3, 5], vec![3, 5]]);
    let spec = with(&|_| ());
    let words: Vec<String> = (0..spec.chain_steps())
        .map(|step| spec.words(step))
        .collect();
    assert_eq!(
        words,
        [
            "the evaluation after step 0",
            "step 1",
            "step 2",
            "the evaluation after step 2",
            "step 3",
            "the evaluation after step 3",
        ]
    );
}

#[test]
fn the_shares_of_replicas_cover_an_evaluation() {
    let mut spec = spec(4, 2, true);
    spec.microbatches = 7;
    for sequences in [1, 2, 13, 500] {
        if let Some(evaluation) = &mut spec.evaluation {
            evaluation.held_out = HeldOut::Last { sequences };
        }
        let (a, b, c) = (
            spec.run_of(0, 0, 1),
            spec.run_of(0, 1, 3),
            spec.run_of(0, 3, 7),
        );
        assert_eq!((a.start, a.end, b.end), (0, b.start, c.start));
        assert_eq!(c.end, spec.microbatches_of(0));
        assert_eq!(spec.run_of(1, 1, 3), 1..3);
    }
}

/// The course of a job with an evaluation after each update, by the losses of the evaluations.
fn course(spec: &JobSpec, losses: &[f32]) -> Course {
    let pairs = losses.iter().flat_map(|&loss| [1.0, loss]);
    Course::of(spec, pairs.map(F32Bits::from))
}

#[test]
fn patience_counts_evaluations_without_a_lower_loss() {
    let mut spec = spec(9, 1, false);
    let evaluation = spec.evaluation.as_mut().unwrap();
    evaluation.keep_best = true;
    evaluation.patience = Some(Patience {
        evaluations: 2,
        threshold: F32Bits::from(0.5),
    });
    for (losses, stops, best) in [
        (&[4.0, 3.0, 2.0][..], false, 2),
        // Lower, but not by the threshold: the best one all the same, as transformers has it.
        (&[4.0, 3.75, 3.5], true, 2),
        (&[4.0, 4.5, 3.0, 3.0], false, 2),
        (&[4.0, 4.5, 3.0, 3.0, 5.0], true, 2),
    ] {
        let course = course(&spec, losses);
        assert_eq!(course.is_stopped(&spec), stops, "{losses:?}");
        assert_eq!(course.best().unwrap().0, 2 * best + 1, "{losses:?}");
        assert_eq!(course.result_steps(&spec), 2 * best + 2);
    }
}

#[test]
fn a_loss_above_the_limit_must_be_there_in_a_row() {
    let mut spec = spec(9, 9, false);
    spec.loss_limit = Some(LossLimit {
        threshold: F32Bits::from(5.0),
        updates: 2,
    });
    let diverged = |losses: &[f32]| {
        let losses = losses.iter().map(|&loss| F32Bits::from(loss));
        Course::of(&spec, losses).has_diverged(&spec)
    };
    assert!(!diverged(&[6.0, 4.0, 6.0]));
    assert!(!diverged(&[5.0, 5.0]));
    assert!(diverged(&[1.0, 6.0, 7.0]));
}
