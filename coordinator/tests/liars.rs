//! Every lie names its liar, no honest party is accused, and the record stays what it is.

use concord_simulator as sim;

use concord_proto::client::{JobEvent, JobState};
use concord_proto::ledger::Offence;
use concord_proto::session::ToCoordinator;
use concord_proto::{Digest, WorkerId};
use concord_verify::training::bundle;
use sim::job::{ALWAYS, job};
use sim::lies::{Kind, Lie};
use sim::world::{Checker, SECOND, World, key};

const STEPS: u32 = 7;
const LIMIT: u64 = 900 * SECOND;

fn alone() -> Digest {
    let mut world = World::new(1, job(STEPS, (1, 1), false));
    world.join_worker(1, 0, None);
    world.run(LIMIT).expect("one honest worker is enough")
}

fn told(world: &World) -> String {
    let events = world.memory.events.iter().map(|event| format!("{event:?}"));
    events.collect::<Vec<_>>().join("\n")
}

/// Runs to the end; the bundle must hold.
fn finish(world: &mut World, what: &str) -> Digest {
    let Some(record) = world.run(LIMIT) else {
        panic!("{what}: not done; events:\n{}", told(world));
    };
    if let Err(error) = bundle::verify(&world.memory.bundle(&world.new)) {
        panic!("{what}: {error}; events:\n{}", told(world));
    }
    record
}

fn convictions(world: &World) -> Vec<(WorkerId, Offence)> {
    let convicted = world.memory.convicted.iter();
    convicted.map(|(&id, &offence)| (id, offence)).collect()
}

/// A pool of `plan` workers of which number `liar` lies, with two spares and two checkers.
fn pool(seed: u64, plan: (u32, u32), liar: u8, lie: Lie) -> World {
    let mut new = job(STEPS, plan, false);
    new.submission.options.audit_rate = ALWAYS;
    new.submission.options.checkers = 2;
    let mut world = World::new(seed, new);
    for number in 1..=(plan.0 * plan.1) as u8 {
        let lie = (number == liar).then_some(lie);
        world.join_worker(number, 0, lie);
    }
    for spare in [101, 102] {
        world.join_fast_worker(spare, 0, None, 1_000);
    }
    world.join_checker(201, 0, Checker::Honest);
    world.join_checker(202, 0, Checker::Honest);
    world
}

#[test]
fn every_lie_of_a_worker_names_it() {
    let expected = alone();
    let cases = [
        (Kind::WrongForward, Offence::WrongResult),
        (Kind::WrongBackward, Offence::WrongResult),
        (Kind::SkipUpdate, Offence::WrongResult),
        (Kind::WrongTokens, Offence::WrongClaim),
        (Kind::StaleState, Offence::WrongClaim),
        (Kind::MissingLeaf, Offence::WrongClaim),
        (Kind::WrongNorm, Offence::WrongResult),
        (Kind::NanNorm, Offence::WrongResult),
        (Kind::InfiniteNorm, Offence::WrongResult),
        (Kind::NegativeNorm, Offence::WrongResult),
    ];
    for (kind, offence) in cases {
        for (plan, liar) in [
            ((1, 1), 1),
            ((2, 1), 1),
            ((2, 1), 2),
            ((1, 2), 2),
            ((2, 2), 3),
        ] {
            let lie = Lie { kind, from_step: 2 };
            let mut world = pool(7, plan, liar, lie);
            let what = format!("{kind:?} by worker {liar} of {plan:?}");
            // The planner decides who sits where: a middle stage may never see a token.
            let record = finish(&mut world, &what);
            assert_eq!(record, expected, "{what}:\n{}", told(&world));
            let found = convictions(&world);
            let culprit = key(liar).public();
            assert_eq!(found, [(culprit, offence)], "{what}:\n{}", told(&world));
        }
    }
}

/// Lies that nothing shows to others: the job goes on without the liar, and its key is not
/// convicted.
#[test]
fn what_nothing_shows_convicts_nobody() {
    let expected = alone();
    for kind in [Kind::Replay, Kind::ForgedClaim, Kind::OtherFlush] {
        for (plan, liar) in [((1, 1), 1), ((2, 1), 1), ((2, 1), 2), ((2, 2), 3)] {
            if kind == Kind::OtherFlush && plan.1 > 1 {
                // Only one of the workers that hold a tensor flushes it.
                continue;
            }
            let lie = Lie { kind, from_step: 2 };
            let mut world = pool(7, plan, liar, lie);
            let what = format!("{kind:?} by worker {liar} of {plan:?}");
            let record = finish(&mut world, &what);
            assert_eq!(record, expected, "{what}:\n{}", told(&world));
            assert_eq!(convictions(&world), [], "{what}:\n{}", told(&world));
            let aside = &world.memory.progress.as_ref().unwrap().set_aside;
            assert_eq!(*aside, [key(liar).public()], "{what}");
        }
    }
}

/// Lies that are only possible between two workers.
#[test]
fn every_gap_between_two_claims_names_its_culprit() {
    let expected = alone();
    let cases = [
        // Lie, plan, place of the liar in its pipeline, offence.
        (Kind::OtherActivation, (2, 1), 1, Offence::Equivocation),
        (Kind::OtherInput, (2, 1), 1, Offence::Forgery),
        (Kind::OtherInput, (2, 1), 2, Offence::Forgery),
        (Kind::OtherInput, (1, 2), 1, Offence::Forgery),
        (Kind::OtherSum, (1, 2), 1, Offence::Equivocation),
        (Kind::OtherSum, (1, 2), 2, Offence::Equivocation),
    ];
    for (kind, plan, slot, offence) in cases {
        for liar in [1, 2] {
            let lie = Lie { kind, from_step: 2 };
            let mut world = pool(11, plan, liar, lie);
            let what = format!("{kind:?} by worker {liar} of {plan:?}");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
            let first = world.memory.plans[&1].workers().next().map(|(_, id)| id);
            let is_first = first == Some(key(liar).public());
            if plan == (2, 1) && is_first != (slot == 1) {
                // In this place it is another lie, which another case has.
                continue;
            }
            let culprit = key(liar).public();
            assert_eq!(
                convictions(&world),
                [(culprit, offence)],
                "{what}:\n{}",
                told(&world)
            );
        }
    }
}

/// Bytes that are no message may come from anyone between the two: they cost a session, and no key.
#[test]
fn garbage_ends_a_session_and_accuses_nobody() {
    let expected = alone();
    for plan in [(1, 1), (2, 1)] {
        let honest = Lie {
            kind: Kind::WrongForward,
            from_step: u32::MAX,
        };
        let mut world = pool(3, plan, 1, honest);
        for moment in 1..6 {
            world.garbage(key(1).public(), moment * SECOND / 5);
        }
        assert_eq!(finish(&mut world, "garbage"), expected);
        assert_eq!(convictions(&world), [], "{}", told(&world));
        let is_lost = |event: &&JobEvent| match event {
            JobEvent::Lost { reason, .. } => reason.contains("bytes that are no message"),
            _ => false,
        };
        let lost = world.memory.events.iter().filter(is_lost).count();
        assert!(lost > 0, "{}", told(&world));
    }
}

/// A lazy checker, and in every other pool a worker that lies: both are convicted.
#[test]
fn checkers_are_checked() {
    let expected = alone();
    for seed in 0..20 {
        let mut new = job(STEPS, (2, 1), false);
        let options = &mut new.submission.options;
        options.audit_rate = ALWAYS / 2;
        options.recheck_rate = ALWAYS / 8;
        options.checkers = 3;
        let mut world = World::new(seed, new);
        let lie = Lie {
            kind: Kind::WrongBackward,
            from_step: 3,
        };
        world.join_worker(1, 0, Some(lie).filter(|_| seed % 2 == 0));
        world.join_worker(2, 0, None);
        world.join_fast_worker(101, 0, None, 1_000);
        let lazy = world.join_checker(201, 0, Checker::Lazy);
        world.join_checker(202, 0, Checker::Honest);
        world.join_checker(203, 0, Checker::Honest);
        let what = format!("a lazy checker, seed {seed}");
        assert_eq!(finish(&mut world, &what), expected, "{what}");
        let mut due = vec![(lazy, Offence::FalseVerdict)];
        if seed % 2 == 0 {
            due.push((key(1).public(), Offence::WrongResult));
        }
        due.sort_by_key(|(id, _)| *id);
        assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
    }
}

/// What honest workers may have on its way when a plan ends is dropped in silence.
#[test]
fn stale_messages_are_no_offence() {
    let expected = alone();
    let mut losses = 0;
    for seed in 0..60 {
        let mut new = job(STEPS, (2, 1), false);
        new.submission.options.checkpoint_every = 1;
        let mut world = World::new(seed, new.clone());
        let workers = [world.join_worker(1, 0, None), world.join_worker(2, 0, None)];
        world.join_fast_worker(101, 0, None, 1_000);
        let job = new.submission.spec.id();
        for (index, worker) in workers.into_iter().enumerate() {
            // A failure ends the epoch while both have messages on their way.
            let at = SECOND / 20 * (1 + (seed + index as u64) % 7);
            for epoch in 1..4 {
                let reason = "a neighbour does not answer".to_string();
                let failed = ToCoordinator::Failed {
                    job,
                    epoch,
                    reason,
                    permanent: false,
                };
                world.say(worker, at * u64::from(epoch), failed);
            }
        }
        assert_eq!(
            finish(&mut world, &format!("seed {seed}")),
            expected,
            "seed {seed}"
        );
        assert!(
            world.memory.convicted.is_empty(),
            "seed {seed}:\n{}",
            told(&world)
        );
        let lost = |event: &&JobEvent| matches!(event, JobEvent::Lost { .. });
        losses += world.memory.events.iter().filter(lost).count();
    }
    assert!(losses > 60, "{losses} losses are no test");
}

/// Two workers name different norms of one tensor: both leaves are re-run before the step goes on,
/// and the honest worker keeps its seat.
#[test]
fn of_two_norms_of_one_tensor_the_false_one_is_found() {
    let expected = alone();
    for kind in [Kind::WrongNorm, Kind::NanNorm] {
        for (liar, honest) in [(1, 2), (2, 1)] {
            let lie = Lie { kind, from_step: 2 };
            // Without a draw: the dispute alone finds it.
            let mut new = job(STEPS, (1, 2), false);
            new.submission.options.checkers = 2;
            let mut world = World::new(7, new);
            for number in 1..=2 {
                world.join_worker(number, 0, (number == liar).then_some(lie));
            }
            world.join_fast_worker(101, 0, None, 1_000);
            world.join_checker(201, 0, Checker::Honest);
            world.join_checker(202, 0, Checker::Honest);
            let what = format!("{kind:?} by worker {liar}");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
            let culprit = key(liar).public();
            let due = [(culprit, Offence::WrongResult)];
            assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
            let aside = &world.memory.progress.as_ref().unwrap().set_aside;
            assert!(aside.is_empty(), "{what}: {aside:?}");
            let last = world.memory.plans.values().next_back().unwrap();
            assert!(last.slot(&key(honest).public()).is_some(), "{what}");
        }
    }
}

/// A value that is no finite number is nobody's offence where all who compute it get it: then the
/// training diverges, and the job says so.
#[test]
fn a_training_that_diverges_ends_and_accuses_nobody() {
    let pools = [((1, 1), 1), ((1, 2), 1), ((2, 1), 2), ((1, 1), 0)];
    let with = |referee| pools.map(|(plan, checkers)| (referee, plan, checkers));
    for (referee, plan, checkers) in with(true).into_iter().chain(with(false)) {
        let mut new = job(STEPS, plan, false);
        new.submission.spec.schedule.learning_rate = 1e7.into();
        let mut world = World::new(5, new);
        world.config.referee = referee;
        world.replay_submission();
        for number in 1..=(plan.0 * plan.1) as u8 {
            world.join_worker(number, 0, None);
        }
        for number in 0..checkers {
            world.join_checker(201 + number, 0, Checker::Honest);
        }
        assert_eq!(world.run(LIMIT), None);
        let state = &world.memory.progress.as_ref().unwrap().state;
        let JobState::Failed(why) = state else {
            panic!("{plan:?}: {state:?}");
        };
        for words in [
            "step 1: ",
            "norm of",
            "inf",
            "The training diverges",
            "learning_rate",
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
        let is_unseen = checkers == 0 && !referee;
        assert_eq!(why.contains("add a checker"), is_unseen, "{why}");
        assert_eq!(convictions(&world), []);
    }
}

fn hopeless(world: &World, epoch: u32) -> ToCoordinator {
    ToCoordinator::Failed {
        job: world.new.submission.spec.id(),
        epoch,
        reason: "nobody can do that".to_string(),
        permanent: true,
    }
}

/// Who has no part in a plan has nothing to say about it.
#[test]
fn bystanders_cannot_end_a_job_or_a_plan() {
    let expected = alone();
    for permanent in [true, false] {
        let mut world = World::new(9, job(STEPS, (1, 1), false));
        world.join_worker(1, 0, None);
        let bystanders = [101, 102].map(|n| world.join_fast_worker(n, 0, None, 1_000));
        let checker = world.join_checker(201, 0, Checker::Honest);
        for moment in 1..20 {
            for bystander in bystanders.into_iter().chain([checker]) {
                let mut failed = hopeless(&world, 1);
                if let ToCoordinator::Failed { permanent: it, .. } = &mut failed {
                    *it = permanent;
                }
                world.say(bystander, moment * SECOND / 20, failed);
                let shortage = ToCoordinator::OutOfMemory {
                    job: world.new.submission.spec.id(),
                    epoch: 1,
                    reason: "no memory".to_string(),
                    needed_bytes: 1,
                    limit_bytes: 1,
                };
                world.say(bystander, moment * SECOND / 20, shortage);
                let unreached = ToCoordinator::Unreached {
                    job: world.new.submission.spec.id(),
                    epoch: 1,
                    worker: key(1).public(),
                    reason: "no answer".to_string(),
                };
                world.say(bystander, moment * SECOND / 20, unreached);
            }
        }
        assert_eq!(finish(&mut world, "bystanders"), expected);
        assert_eq!(world.memory.plans.len(), 1, "{}", told(&world));
    }
}

/// Two workers that cannot do different steps say nothing of the job: each has failed once.
#[test]
fn two_workers_that_fail_at_different_steps_do_not_end_a_job() {
    let mut world = World::new(9, job(60, (1, 1), false));
    world.join_worker(1, 0, None);
    world.join_fast_worker(2, 0, None, 10_000);
    world.join_fast_worker(3, 0, None, 1_000);
    let failed = [hopeless(&world, 1), hopeless(&world, 2)];
    for (number, (failed, at)) in (1_u8..).zip(failed.into_iter().zip([3, 8])) {
        world.say(key(number).public(), at * SECOND / 10, failed);
    }
    finish(&mut world, "two that fail");
    let aside = &world.memory.progress.as_ref().unwrap().set_aside;
    assert_eq!(aside.len(), 2, "{}", told(&world));
}

/// A step that comes out differently when it is done again is re-run whole, and the truth stays.
#[test]
fn a_record_that_changes_is_contested() {
    let expected = alone();
    for (checkers, moment) in [(1, 10), (1, 12), (2, 11)] {
        let mut new = job(STEPS, (1, 1), false);
        new.submission.options.checkpoint_every = 0;
        let mut world = World::new(moment, new);
        let lie = Lie {
            kind: Kind::WrongBackward,
            from_step: 1,
        };
        let liar = world.join_worker(1, 0, Some(lie));
        world.kill(liar, moment * SECOND / 100);
        world.join_late(2, 5 * SECOND, 1);
        for number in 0..checkers {
            world.join_checker(201 + number, 0, Checker::Honest);
        }
        let what = format!("dead at {moment}");
        let record = finish(&mut world, &what);
        let done = world.memory.events.iter().filter_map(|event| match event {
            JobEvent::Step {
                step: 1, record, ..
            } => Some(*record),
            _ => None,
        });
        let done: Vec<Digest> = done.collect();
        assert!(
            done.len() == 2 && done[0] != done[1],
            "{what}:\n{}",
            told(&world)
        );
        assert_eq!(record, expected, "{what}:\n{}", told(&world));
    }
}

#[test]
fn a_worker_that_is_silent_or_names_another_history_is_done_without() {
    let expected = alone();
    for kind in [
        Kind::SilentForward,
        Kind::SilentUpdate,
        Kind::SilentFlush,
        Kind::OtherHistory,
    ] {
        for (plan, liar) in [((1, 1), 1), ((2, 1), 1), ((2, 1), 2), ((2, 2), 3)] {
            let lie = Lie { kind, from_step: 2 };
            let mut world = World::new(7, job(STEPS, plan, false));
            for number in 1..=(plan.0 * plan.1) as u8 + 2 {
                world.join_worker(number, 0, (number == liar).then_some(lie));
            }
            world.config.stall_us = 10 * SECOND;
            world.replay_submission();
            let what = format!("{kind:?} of worker {liar} of {plan:?}");
            let record = world.run(LIMIT);
            assert_eq!(record, Some(expected), "{what}:\n{}", told(&world));
            assert!(world.memory.convicted.is_empty(), "{what}");
        }
    }
}
