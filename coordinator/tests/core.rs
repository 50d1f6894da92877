//! The core, driven by make-believe workers: whatever happens to the pool, one job has one record.

use concord_simulator as sim;

use std::collections::BTreeMap;

use concord_coordinator::core::Question;
use concord_proto::Digest;
use concord_proto::client::{ClientResponse, JobEvent, PlanChoice};
use concord_proto::session::Role;
use concord_verify::training::bundle;
use sim::job::{ALWAYS, job};
use sim::rng::Rng;
use sim::world::{Checker, SECOND, World, key};

const STEPS: u32 = 7;
const SEEDS: u64 = 300;
const LIMIT: u64 = 900 * SECOND;

/// What the job gives on one worker to which nothing happens.
fn alone(tied: bool) -> Digest {
    let mut world = World::new(1, job(STEPS, (1, 1), tied));
    world.join_worker(1, 0, None);
    finish(&mut world, "alone")
}

fn finish(world: &mut World, what: &str) -> Digest {
    let record = world.run(LIMIT);
    let Some(record) = record else {
        let events: Vec<String> = world
            .memory
            .events
            .iter()
            .map(|e| format!("{e:?}"))
            .collect();
        panic!("{what}: not done; events:\n{}", events.join("\n"));
    };
    if let Err(error) = bundle::verify(&world.memory.bundle(&world.new)) {
        let events: Vec<String> = world
            .memory
            .events
            .iter()
            .map(|e| format!("{e:?}"))
            .collect();
        panic!("{what}: {error}; events:\n{}", events.join("\n"));
    }
    record
}

#[test]
fn every_cut_gives_one_record() {
    for tied in [false, true] {
        let expected = alone(tied);
        println!("tied {tied}: {expected}");
        for (stages, replicas) in [(2, 1), (4, 1), (1, 2), (2, 2), (3, 2), (1, 5)] {
            let mut world = World::new(2, job(STEPS, (stages, replicas), tied));
            for number in 0..stages * replicas {
                world.join_worker(number as u8 + 1, 0, None);
            }
            let what = format!("{stages}x{replicas}");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
        }
    }
}

/// Two pipelines of two stages, audited, with a spare.
fn busy(seed: u64) -> World {
    let mut new = job(STEPS, (2, 2), true);
    let options = &mut new.submission.options;
    options.audit_rate = ALWAYS / 4;
    options.recheck_rate = ALWAYS / 4;
    options.checkers = 1;
    let mut world = World::new(seed, new);
    for number in 1..=5 {
        world.join_worker(number, 0, None);
    }
    world.join_checker(201, 0, Checker::Honest);
    world
}

/// The audits that the status shows of checkers.
fn shown_of_checkers(world: &mut World) -> Option<u64> {
    let Some(ClientResponse::Status(status)) = world.ask(Question::Status) else {
        return None;
    };
    let mut members = status.members.iter();
    let checker = members.find(|member| member.role == Role::Checker)?;
    Some(checker.audits_passed)
}

#[test]
fn what_checkers_have_audited_is_shown_also_after_a_restart() {
    let mut world = busy(3);
    finish(&mut world, "audited");
    let is_audit = |event: &&JobEvent| matches!(event, JobEvent::Audited { .. });
    let audited = world.memory.events.iter().filter(is_audit).count() as u64;
    assert!(audited > 0);
    assert_eq!(shown_of_checkers(&mut world), Some(audited));
    world.die_coordinator();
    // One thing after another happens, because the job is done.
    let mut again = None;
    for _ in 0..20_000 {
        world.run(LIMIT);
        again = shown_of_checkers(&mut world);
        if again.is_some() {
            break;
        }
    }
    assert_eq!(again, Some(audited));
}

/// Which states a client is told of, in order, and which of them are still in the store.
fn saved(world: &World) -> (Vec<u32>, Vec<u32>) {
    let told = world.memory.events.iter().filter_map(|event| match event {
        JobEvent::Saved { steps, .. } => Some(*steps),
        _ => None,
    });
    let stored = world.memory.checkpoints.keys().copied();
    (told.collect(), stored.filter(|step| *step > 0).collect())
}

#[test]
fn every_checkpoint_that_is_due_stays_until_it_is_fetched() {
    let wants = |kept: u32| {
        let mut new = job(STEPS, (2, 2), true);
        new.submission.options.checkpoint_every = 1;
        new.submission.options.checkpoints_kept = kept;
        let mut world = World::new(5, new);
        for number in 1..=4 {
            world.join_worker(number, 0, None);
        }
        assert_eq!(finish(&mut world, "saved"), alone(true));
        world
    };
    assert_eq!(saved(&wants(0)), (vec![], vec![STEPS]));
    let all: Vec<u32> = (1..=STEPS).collect();
    assert_eq!(saved(&wants(2)), (all.clone(), vec![STEPS - 1, STEPS]));
    let mut world = wants(u32::MAX);
    assert_eq!(saved(&world), (all.clone(), all));
    let id = world.new.submission.spec.id();
    for steps in [3, 4, STEPS, 99] {
        let fetched = Question::Fetched { job: id, steps };
        assert_eq!(world.ask(fetched), Some(ClientResponse::Noted));
    }
    assert_eq!(
        saved(&world).1,
        [1, 2, 5, 6, STEPS],
        "the last one is the result"
    );
}

#[test]
fn a_coordinator_may_die_after_any_effect() {
    let expected = alone(true);
    let mut whole = busy(3);
    assert_eq!(finish(&mut whole, "undisturbed"), expected);
    let effects = whole.effects - busy(3).effects;
    println!("{effects} effects");
    for after in 0..effects {
        let mut world = busy(3);
        world.crash_after = Some(after);
        let record = finish(&mut world, &format!("dead after effect {after}"));
        assert_eq!(record, expected, "dead after effect {after}");
        assert_eq!(world.crashes, 1, "it did die");
        assert!(
            world.memory.convicted.is_empty(),
            "dead after effect {after}"
        );
    }
}

#[test]
fn a_worker_may_die_at_any_moment() {
    let expected = alone(true);
    let mut redone = 0;
    for number in 1..=4 {
        for moment in 0..40 {
            let mut world = busy(3);
            let at = moment * SECOND / 40;
            world.kill(key(number).public(), at);
            let what = format!("worker {number} dead after {at} us");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
            assert!(world.memory.convicted.is_empty(), "{what}");
            let redo = |e: &&JobEvent| matches!(e, JobEvent::Planned { step, .. } if *step > 0);
            redone += world.memory.events.iter().filter(redo).count();
        }
    }
    assert!(redone > 50, "{redone} new plans are no test");
}

#[test]
fn the_last_worker_may_die_and_another_go_on() {
    let expected = alone(false);
    for moment in 1..40 {
        let mut world = World::new(moment, job(STEPS, (1, 1), false));
        let first = world.join_worker(1, 0, None);
        world.kill(first, moment * SECOND / 100);
        world.join_late(2, 5 * SECOND, 1);
        let what = format!("moment {moment}");
        assert_eq!(finish(&mut world, &what), expected, "{what}");
    }
}

#[test]
fn a_faster_worker_takes_over_at_a_boundary() {
    let mut new = job(STEPS, (1, 1), false);
    new.submission.options.plan = PlanChoice::Auto;
    let mut world = World::new(5, new);
    world.join_fast_worker(1, 0, None, 1_000_000);
    let fast = world.join_fast_worker(2, SECOND / 20, None, 1_000_000_000);
    assert_eq!(finish(&mut world, "joined"), alone(false));
    let plans: Vec<_> = world.memory.plans.values().collect();
    assert_eq!(plans.len(), 2, "{plans:?}");
    assert!(plans[0].slot(&fast).is_none() && plans[1].slot(&fast).is_some());
    let voided = |e: &JobEvent| matches!(e, JobEvent::Voided { .. } | JobEvent::Lost { .. });
    assert!(
        !world.memory.events.iter().any(voided),
        "nothing is lost by joining"
    );
}

#[test]
fn a_worker_that_drains_leaves_nothing_behind() {
    for moment in 1..20 {
        let mut new = job(STEPS, (2, 1), false);
        new.submission.options.audit_rate = ALWAYS;
        new.submission.options.checkers = 1;
        let mut world = World::new(moment, new);
        let leaver = world.join_worker(1, 0, None);
        world.join_worker(2, 0, None);
        world.join_checker(201, 0, Checker::Honest);
        world.drain(leaver, moment * SECOND / 40);
        world.join_late(3, SECOND, 1_000_000_000);
        let what = format!("moment {moment}");
        assert_eq!(finish(&mut world, &what), alone(false), "{what}");
        assert!(!world.is_connected(&leaver), "{what}: it was let go");
        let lost = |e: &JobEvent| match e {
            JobEvent::Voided { .. } | JobEvent::Lost { .. } => true,
            JobEvent::Completed { inconclusive, .. } => *inconclusive > 0,
            _ => false,
        };
        assert!(!world.memory.events.iter().any(lost), "{what}");
    }
}

#[test]
fn a_full_store_loses_nothing() {
    let expected = alone(true);
    for seconds in [1, 20] {
        let mut world = busy(3);
        world.full_until = seconds * SECOND;
        assert_eq!(finish(&mut world, "full"), expected);
        let voided = |e: &JobEvent| matches!(e, JobEvent::Voided { .. });
        assert!(
            !world.memory.events.iter().any(voided),
            "{:?}",
            world.memory.events
        );
    }
}

/// What the planner counts on is not what workers have: it learns, and never asks for the same
/// twice.
#[test]
fn a_worker_that_runs_out_of_memory_gets_less() {
    let expected = alone(false);
    for (rooms, plan) in [
        (&[2, 4][..], PlanChoice::Auto),
        (&[1, 2, 1], PlanChoice::Auto),
        (&[0, 3, 1], PlanChoice::Auto),
        (&[3, 1], fixed(2, 1)),
        (&[0, 4], fixed(2, 1)),
    ] {
        let mut new = job(STEPS, (1, 1), false);
        new.submission.options.plan = plan.clone();
        new.submission.options.min_workers = rooms.len() as u32;
        // A make-believe worker has room for layers, not bytes.
        let profile = &mut new.submission.profile;
        profile.layer_activation_bytes = 0;
        // Nor do the ends of a stage take any of it.
        (profile.embed_bytes, profile.head_bytes) = (0, 0);
        profile.boundary_bytes = 0;
        let mut world = World::new(11, new);
        for (number, room) in (1..).zip(rooms) {
            let id = world.join_worker(number, 0, None);
            world.rooms.insert(id, *room);
        }
        let what = format!("{rooms:?}, {plan:?}");
        assert_eq!(finish(&mut world, &what), expected, "{what}");
        let is_end = |e: &&JobEvent| matches!(e, JobEvent::Lost { .. });
        let ends = world.memory.events.iter().filter(is_end).count();
        assert!((1..12).contains(&ends), "{what}: {ends} plans in vain");
        let kept = world.memory.plans.values().last().unwrap();
        for (slot, worker) in kept.workers() {
            let layers = kept.stages[slot.stage];
            let held = layers.touched().len() as u32;
            assert!(held <= world.rooms[&worker], "{what}");
        }
    }
}

fn fixed(stages: u32, replicas: u32) -> PlanChoice {
    PlanChoice::Fixed {
        stages,
        replicas,
        shares: Vec::new(),
    }
}

#[test]
fn a_job_that_no_worker_can_hold_says_so() {
    let mut world = World::new(12, job(STEPS, (1, 1), false));
    let id = world.join_worker(1, 0, None);
    world.rooms.insert(id, 3);
    assert_eq!(world.run(60 * SECOND), None);
    let events = &world.memory.events;
    let Some(JobEvent::Waiting(what)) = events.last() else {
        panic!("{events:?}");
    };
    for words in ["no plan fits", &id.short(), "4 bytes of 3"] {
        assert!(what.contains(words), "{what}");
    }
    let plans = events
        .iter()
        .filter(|e| matches!(e, JobEvent::Planned { .. }));
    assert_eq!(plans.count(), 1, "{events:?}");
}

/// Everything that may happen to a pool of honest machines, by chance.
fn troubled(seed: u64) -> World {
    let mut dice = Rng::new(seed ^ 0x5eed);
    let tied = seed.is_multiple_of(2);
    let plans = [(1, 1), (2, 1), (2, 2), (1, 3), (3, 1), (4, 1)];
    let plan = plans[dice.below(plans.len() as u64) as usize];
    let mut new = job(STEPS, plan, tied);
    let options = &mut new.submission.options;
    if dice.chance(2) {
        options.plan = PlanChoice::Auto;
    }
    options.checkpoint_every = dice.below(5) as u32;
    options.checkpoints_kept = (seed % 3) as u32;
    options.audit_rate = ALWAYS / 8 * dice.below(4);
    options.recheck_rate = ALWAYS / 4 * dice.below(3);
    let mut world = World::new(seed, new);
    let workers = plan.0 * plan.1 + dice.below(3) as u32;
    let span = dice.below(4) * SECOND / 4 + SECOND / 10;
    for number in 0..workers as u8 {
        let speed = 1_000_000_000 << dice.below(3);
        let at = if dice.chance(3) { dice.below(span) } else { 0 };
        let id = world.join_fast_worker(number + 1, at, None, speed);
        match dice.below(6) {
            0 => {
                let at = dice.below(span);
                world.kill(id, at);
                world.join_late(number + 1, at + dice.below(8 * SECOND), speed);
            }
            1 => {
                let at = dice.below(span);
                world.drain(id, at);
                world.join_late(number + 101, at + dice.below(2 * SECOND), speed);
            }
            2 => world.break_connection(id, dice.below(span)),
            _ => {}
        }
    }
    for number in 0..dice.below(3) as u8 {
        let id = world.join_checker(number + 200, dice.below(span), Checker::Honest);
        if dice.chance(4) {
            world.kill(id, dice.below(span));
        }
    }
    match dice.below(4) {
        0 => world.crash(dice.below(span)),
        1 => world.crash_after = Some(dice.below(300)),
        _ => {}
    }
    world
}

#[test]
fn no_schedule_changes_the_record_and_nobody_is_accused() {
    let expected = [alone(true), alone(false)];
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut world = troubled(seed);
        let record = finish(&mut world, &format!("seed {seed}"));
        assert_eq!(record, expected[(seed % 2) as usize], "seed {seed}");
        assert!(world.memory.convicted.is_empty(), "seed {seed}");
        *seen.entry("crashes").or_default() += world.crashes;
        for event in &world.memory.events {
            *seen.entry(kind(event)).or_default() += 1;
        }
    }
    println!("in {SEEDS} runs: {seen:?}");
    // Runs in which nothing happens would pass: all of this must have happened.
    for what in ["crashes", "lost", "voided", "audited", "planned anew"] {
        assert!(
            seen.get(what).is_some_and(|&count| count > 10),
            "{what}: {seen:?}"
        );
    }
}

fn kind(event: &JobEvent) -> &'static str {
    match event {
        JobEvent::Waiting(_) => "waiting",
        JobEvent::Planned { step: 0, .. } => "planned",
        JobEvent::Planned { .. } => "planned anew",
        JobEvent::Step { .. } => "steps",
        JobEvent::Evaluated { .. } | JobEvent::Stopped { .. } => "evaluations",
        JobEvent::Lost { .. } => "lost",
        JobEvent::Audited { .. } => "audited",
        JobEvent::Convicted { .. } => "convicted",
        JobEvent::Voided { .. } => "voided",
        JobEvent::Saved { .. } => "saved",
        JobEvent::Completed {
            inconclusive: 0, ..
        } => "completed",
        JobEvent::Completed { .. } => "completed with inconclusive audits",
        JobEvent::Failed(_) | JobEvent::Cancelled => "given up",
    }
}
