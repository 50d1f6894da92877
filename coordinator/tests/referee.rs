//! Contradictions: the coordinator's own re-run decides, and no number of words does.

use concord_simulator as sim;

use concord_proto::client::{JobEvent, JobState};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Offence, Verdict};
use concord_proto::{Conviction, Digest, WorkerId};
use concord_verify::training::bundle::{self, Report};
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

/// Runs to the end, which must be a good one with a bundle that holds.
fn finish(world: &mut World, what: &str) -> (Digest, Report) {
    let Some(record) = world.run(LIMIT) else {
        panic!("{what}: not done; events:\n{}", told(world));
    };
    match bundle::verify(&world.memory.bundle(&world.new)) {
        Ok(report) => (record, report),
        Err(error) => panic!("{what}: {error}; events:\n{}", told(world)),
    }
}

fn convictions(world: &World) -> Vec<(WorkerId, Offence)> {
    let convicted = world.memory.convicted.iter();
    convicted.map(|(&id, &offence)| (id, offence)).collect()
}

fn set_aside(world: &World) -> Vec<WorkerId> {
    world.memory.progress.as_ref().unwrap().set_aside.clone()
}

fn entries(world: &World) -> Vec<LedgerEvent> {
    let opened = world.memory.ledger.iter();
    let opened = opened.map(|entry| entry.open::<LedgerEntry>().unwrap().event);
    opened.collect()
}

/// A job of which every leaf is audited, by so many checkers at least.
fn audited(seed: u64, plan: (u32, u32), checkers: u32) -> World {
    let mut new = job(STEPS, plan, false);
    new.submission.options.audit_rate = ALWAYS;
    new.submission.options.checkers = checkers;
    World::new(seed, new)
}

/// Starts anew without a referee.
fn without_referee(world: &mut World) {
    world.config.referee = false;
    world.replay_submission();
}

#[test]
fn two_accusers_do_not_beat_the_truth() {
    let expected = alone();
    for seed in 0..20 {
        let mut world = audited(seed, (1, 1), 2);
        world.join_worker(1, 0, None);
        let accusers = [201, 202].map(|number| world.join_checker(number, 0, Checker::Accuser));
        let what = format!("two accusers, seed {seed}");
        let (record, report) = finish(&mut world, &what);
        assert_eq!(record, expected, "{what}");
        let mut due = accusers
            .map(|accuser| (accuser, Offence::FalseVerdict))
            .to_vec();
        due.sort_by_key(|(id, _)| *id);
        assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
        assert_eq!(report.convictions_on_rerun, 2, "{what}");
        // One word each: nothing more is asked of who is to be decided about.
        let verdicts = entries(&world).into_iter().filter_map(|event| match event {
            LedgerEvent::Convicted { conviction, .. } => Some(*conviction),
            _ => None,
        });
        for conviction in verdicts {
            let Conviction::FalseVerdict { verdict, .. } = conviction else {
                panic!("{what}: {conviction:?}");
            };
            let verdict: Verdict = verdict.open().unwrap();
            assert!(matches!(verdict.finding, Finding::Differs { .. }));
        }
        assert_eq!(world.refereed.len(), 2, "{what}");
        assert_eq!(set_aside(&world), [], "{what}");
    }
}

#[test]
fn an_accuser_alone_is_convicted_at_its_first_word() {
    let mut world = audited(5, (1, 1), 1);
    world.join_worker(1, 0, None);
    let accuser = world.join_checker(201, 0, Checker::Accuser);
    let (record, report) = finish(&mut world, "an accuser alone");
    assert_eq!(record, alone());
    assert_eq!(convictions(&world), [(accuser, Offence::FalseVerdict)]);
    assert_eq!(world.refereed.len(), 1, "{}", told(&world));
    // Nobody else is there to re-run the leaves: the referee is no checker.
    assert_eq!(report.audits_agreed, 0);
}

#[test]
fn one_checker_is_enough_to_convict_a_liar() {
    let expected = alone();
    for kind in [Kind::WrongForward, Kind::WrongBackward, Kind::SkipUpdate] {
        for plan in [(1, 1), (2, 1)] {
            let mut world = audited(7, plan, 1);
            let lie = Lie { kind, from_step: 2 };
            let liar = world.join_worker(1, 0, Some(lie));
            for number in 2..=plan.0 as u8 {
                world.join_worker(number, 0, None);
            }
            // It comes only once the liar is out: nobody else could have had a say.
            world.join_late(101, 20 * SECOND, 1_000);
            world.join_checker(201, 0, Checker::Honest);
            let what = format!("{kind:?} of {plan:?}");
            let (record, report) = finish(&mut world, &what);
            assert_eq!(record, expected, "{what}");
            let due = [(liar, Offence::WrongResult)];
            assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
            assert_eq!(report.convictions_on_rerun, 1, "{what}");
        }
    }
}

/// An honest checker beside one that accuses everybody, and a liar: each is judged by the re-run.
#[test]
fn who_is_wrong_is_convicted_whoever_else_is() {
    let expected = alone();
    for seed in 0..20 {
        let mut world = audited(seed, (2, 1), 2);
        let lie = Lie {
            kind: Kind::WrongBackward,
            from_step: 3,
        };
        let liar = world.join_worker(1, 0, Some(lie));
        world.join_worker(2, 0, None);
        world.join_fast_worker(101, 0, None, 1_000);
        let accuser = world.join_checker(201, 0, Checker::Accuser);
        world.join_checker(202, 0, Checker::Honest);
        let what = format!("a liar and an accuser, seed {seed}");
        assert_eq!(finish(&mut world, &what).0, expected, "{what}");
        let mut due = [
            (liar, Offence::WrongResult),
            (accuser, Offence::FalseVerdict),
        ];
        due.sort_by_key(|(id, _)| *id);
        assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
    }
}

#[test]
fn without_inputs_nobody_is_convicted() {
    let expected = alone();
    for checker in [Checker::Accuser, Checker::Honest] {
        let mut world = audited(5, (1, 1), 1);
        world.withholds_from_referee = true;
        let lie = Lie {
            kind: Kind::WrongForward,
            from_step: 2,
        };
        // Whether the worker or the checker lies: the referee cannot know.
        let worker = world.join_worker(1, 0, (checker == Checker::Honest).then_some(lie));
        world.join_checker(201, 0, checker);
        world.join_fast_worker(101, 0, None, 1_000);
        let what = format!("{checker:?}");
        let record = world.run(LIMIT);
        assert_eq!(convictions(&world), [], "{what}:\n{}", told(&world));
        assert!(set_aside(&world).contains(&worker), "{what}");
        if checker == Checker::Honest {
            assert_eq!(record, Some(expected), "{what}:\n{}", told(&world));
        } else {
            let state = &world.memory.progress.as_ref().unwrap().state;
            let words = "nothing decides about it";
            let is_told = matches!(state, JobState::Failed(why) if why.contains(words));
            assert!(is_told, "{what}: {state:?}");
        }
    }
}

/// Without a referee another party gives its opinion, and the job does without who is outvoted.
#[test]
fn words_alone_convict_nobody() {
    let expected = alone();
    // Two accusers are more than one honest worker: it is left out, and not convicted.
    let mut world = audited(5, (1, 1), 2);
    without_referee(&mut world);
    let worker = world.join_worker(1, 0, None);
    for number in [201, 202] {
        world.join_checker(number, 0, Checker::Accuser);
    }
    assert_eq!(world.run(LIMIT), None);
    assert_eq!(convictions(&world), []);
    assert_eq!(set_aside(&world), [worker]);
    // One accuser is outvoted, and what it said stays in the ledger.
    for seed in 0..10 {
        let mut world = audited(seed, (2, 1), 2);
        without_referee(&mut world);
        world.join_worker(1, 0, None);
        world.join_worker(2, 0, None);
        let accuser = world.join_checker(201, 0, Checker::Accuser);
        world.join_checker(202, 0, Checker::Honest);
        let what = format!("outvoted, seed {seed}");
        assert_eq!(finish(&mut world, &what).0, expected, "{what}");
        assert_eq!(convictions(&world), [], "{what}");
        assert_eq!(set_aside(&world), [accuser], "{what}");
        let dissents = entries(&world).into_iter().filter(|event| match event {
            LedgerEvent::Judged { verdict } => verdict.signer == accuser,
            _ => false,
        });
        assert_eq!(dissents.count(), 1, "{what}");
        assert!(world.refereed.is_empty());
    }
}

/// A referee without the memory for a leaf is none for it: others give their opinion, and nobody is
/// convicted. One accuser does not cost an honest worker its seat.
#[test]
fn a_referee_without_memory_leaves_it_to_others() {
    let expected = alone();
    for seed in 0..10 {
        let mut world = audited(seed, (2, 1), 2);
        world.is_referee_small = true;
        world.join_worker(1, 0, None);
        world.join_worker(2, 0, None);
        let accuser = world.join_checker(201, 0, Checker::Accuser);
        world.join_checker(202, 0, Checker::Honest);
        let what = format!("an accuser, seed {seed}");
        assert_eq!(finish(&mut world, &what).0, expected, "{what}");
        assert_eq!(convictions(&world), [], "{what}");
        assert_eq!(set_aside(&world), [accuser], "{what}");
        assert!(!world.refereed.is_empty(), "{what}");
    }
    let mut world = audited(3, (1, 1), 2);
    world.is_referee_small = true;
    let lie = Lie {
        kind: Kind::WrongForward,
        from_step: 2,
    };
    let liar = world.join_worker(1, 0, Some(lie));
    world.join_fast_worker(101, 0, None, 1_000);
    for number in [201, 202] {
        world.join_checker(number, 0, Checker::Honest);
    }
    assert_eq!(finish(&mut world, "a liar").0, expected);
    assert_eq!(convictions(&world), []);
    assert_eq!(set_aside(&world), [liar]);
}

/// Two workers differ about a norm, or one reports none that is a number: a re-run decides before
/// the step goes on, with no checker there.
#[test]
fn norms_are_settled_by_the_referee_alone() {
    let expected = alone();
    for kind in [Kind::WrongNorm, Kind::NanNorm, Kind::InfiniteNorm] {
        for plan in [(1, 2), (2, 1)] {
            if (kind, plan.1) == (Kind::WrongNorm, 1) {
                // Nobody else has a norm of the tensor.
                continue;
            }
            for liar in [1, 2] {
                let mut world = World::new(7, job(STEPS, plan, false));
                for number in 1..=2 {
                    let lie = Lie { kind, from_step: 2 };
                    world.join_worker(number, 0, (number == liar).then_some(lie));
                }
                world.join_fast_worker(101, 0, None, 1_000);
                let what = format!("{kind:?} by worker {liar} of {plan:?}");
                assert_eq!(finish(&mut world, &what).0, expected, "{what}");
                let due = [(key(liar).public(), Offence::WrongResult)];
                assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
                assert_eq!(set_aside(&world), [], "{what}");
            }
        }
    }
}

/// The coordinator dies while the referee computes. The checker that accused is gone then: what it
/// signed is decided about all the same.
#[test]
fn a_restart_forgets_no_contradiction() {
    let expected = alone();
    for (kind, offence) in [
        (None, Offence::FalseVerdict),
        (Some(Kind::WrongForward), Offence::WrongResult),
    ] {
        let mut world = audited(9, (1, 1), 1);
        let lie = kind.map(|kind| Lie { kind, from_step: 2 });
        let worker = world.join_worker(1, 0, lie);
        let how = match kind {
            None => Checker::Accuser,
            Some(_) => Checker::Honest,
        };
        let checker = world.join_checker(201, 0, how);
        world.join_late(101, 60 * SECOND, 1_000);
        world.join_checker(202, 30 * SECOND, Checker::Honest);
        world.referee_takes = 5 * SECOND;
        world.dies_at_first_rerun = true;
        world.kill_at_crash = Some(checker);
        let what = format!("{kind:?}");
        assert_eq!(finish(&mut world, &what).0, expected, "{what}");
        assert_eq!(world.crashes, 1, "{what}");
        let culprit = if kind.is_none() { checker } else { worker };
        let due = [(culprit, offence)];
        assert_eq!(convictions(&world), due, "{what}:\n{}", told(&world));
        // One before the restart, and one after it, whichever of those that were open.
        assert_eq!(world.refereed.len(), 2, "{what}");
    }
}

/// The job goes on while the referee computes, up to the bound of open steps; the accused worker
/// gets no new seat meanwhile.
#[test]
fn a_job_goes_on_while_the_referee_computes() {
    let mut world = audited(3, (1, 1), 1);
    let worker = world.join_worker(1, 0, None);
    world.join_checker(201, 0, Checker::Accuser);
    world.referee_takes = 20 * SECOND;
    // Its link breaks while it is accused: the plan ends, and the next one waits.
    world.break_connection(worker, 5 * SECOND);
    let (record, _) = finish(&mut world, "a slow referee");
    assert_eq!(record, alone());
    let events = &world.memory.events;
    let convicted = events
        .iter()
        .position(|event| matches!(event, JobEvent::Convicted { .. }));
    let (before, _) = events.split_at(convicted.expect("the accuser"));
    let steps = before
        .iter()
        .filter(|event| matches!(event, JobEvent::Step { .. }));
    assert!(steps.count() > 1, "{}", told(&world));
    let waits = |event: &JobEvent| match event {
        JobEvent::Waiting(what) => what.contains("is accused of a wrong result"),
        _ => false,
    };
    assert!(before.iter().any(waits), "{}", told(&world));
}

/// A checker that says of every leaf that it is right without looking has no trace to show: the
/// first of its verdicts is checked, and whatever it passed, it is convicted.
#[test]
fn a_verdict_without_a_trace_convicts_its_checker() {
    let expected = alone();
    for lies in [false, true] {
        let mut world = audited(4, (1, 1), 1);
        world.new.submission.options.recheck_rate = 1;
        let lie = Lie {
            kind: Kind::WrongForward,
            from_step: 0,
        };
        let liar = world.join_worker(1, 0, lies.then_some(lie));
        world.join_fast_worker(101, 0, None, 1_000);
        let lazy = world.join_checker(201, 0, Checker::Lazy);
        world.replay_submission();
        let (record, report) = finish(&mut world, "a lazy checker");
        let mut due = vec![(lazy, Offence::FalseVerdict)];
        due.extend(lies.then_some((liar, Offence::WrongResult)));
        due.sort_by_key(|(id, _)| *id);
        assert_eq!(convictions(&world), due, "{}", told(&world));
        assert_eq!(report.convictions_on_rerun, due.len() as u32);
        assert!(report.auditors.is_empty(), "{:?}", report.auditors);
        assert!(lies || record == expected, "{}", told(&world));
    }
}

/// An honest checker whose every verdict is checked is convicted of nothing.
#[test]
fn the_trace_of_an_honest_checker_is_that_of_a_re_run() {
    let mut world = audited(6, (2, 1), 1);
    world.new.submission.options.recheck_rate = ALWAYS;
    world.join_worker(1, 0, None);
    world.join_worker(2, 0, None);
    world.join_checker(201, 0, Checker::Honest);
    world.replay_submission();
    let (_, report) = finish(&mut world, "an honest checker");
    assert_eq!(convictions(&world), []);
    assert_eq!(world.refereed.len() as u64, report.audits_agreed);
    assert_eq!(report.auditors[0].unsettled, 0);
}
