//! Liars that are generated, not listed: a worker or checker alters any field of any message, by
//! the dice of a seed. The record stays what it is, nobody honest is convicted, and the job comes
//! to an end.
//!
//! `CONCORD_SEEDS=A..B` runs other seeds than the few that are run by default; with `--nocapture`
//! the test prints what became of the lies.

use concord_simulator as sim;

use std::collections::BTreeMap;

use concord_proto::client::JobEvent;
use concord_proto::{Digest, WorkerId};
use concord_verify::training::bundle;
use sim::job::{ALWAYS, job};
use sim::mutation::{Mutant, TARGETS, Target};
use sim::rng::Rng;
use sim::world::{Checker, SECOND, World, key};

const STEPS: u32 = 4;
const LIMIT: u64 = 1_800 * SECOND;

/// Seeds that are run where nobody asks for others.
const SEEDS: std::ops::Range<u64> = 0..400;

const PLANS: [(u32, u32); 4] = [(1, 1), (2, 1), (1, 2), (2, 2)];

const SPARES: [u8; 2] = [101, 102];
const CHECKERS: [u8; 3] = [201, 202, 203];

/// The record of one honest worker.
fn alone(is_tied: bool) -> Digest {
    let mut world = World::new(1, job(STEPS, (1, 1), is_tied));
    world.join_worker(1, 0, None);
    world.run(LIMIT).expect("one honest worker is enough")
}

/// A pool in which all leaves are audited and one process lies. Gives the liar, and whether the job
/// has a tied embedding.
fn pool(seed: u64) -> (World, WorkerId, bool) {
    let mut dice = Rng::new(seed);
    let plan = PLANS[dice.below(PLANS.len() as u64) as usize];
    let target = TARGETS[dice.below(TARGETS.len() as u64) as usize];
    let seats = u64::from(plan.0 * plan.1);
    let is_tied = dice.chance(4);
    let mut new = job(STEPS, plan, is_tied);
    new.submission.options.audit_rate = ALWAYS;
    new.submission.options.checkers = CHECKERS.len() as u32;
    let mut world = World::new(seed, new);
    world.config.referee = true;
    world.config.stall_us = 10 * SECOND;
    for number in 1..=seats as u8 {
        world.join_worker(number, 0, None);
    }
    for spare in SPARES {
        world.join_fast_worker(spare, 0, None, 700_000_000);
    }
    for checker in CHECKERS {
        world.join_checker(checker, 0, Checker::Honest);
    }
    let liar = match target {
        Target::Verdict => CHECKERS[dice.below(CHECKERS.len() as u64) as usize],
        _ => 1 + dice.below(seats) as u8,
    };
    let id = key(liar).public();
    let mutant = Mutant::new(key(liar), dice.number(), target);
    world.replay_submission();
    world.mutate(id, mutant);
    (world, id, is_tied)
}

/// What became of a lie, or what must not have happened.
fn outcome(seed: u64, expected: [Digest; 2]) -> Result<String, String> {
    let (mut world, liar, is_tied) = pool(seed);
    let expected = expected[usize::from(is_tied)];
    let record = world.run(LIMIT);
    let deeds = world.mutants[&liar].deeds.clone();
    let ended = world.memory.events.last();
    let fault = |what: String| {
        let events = world
            .memory
            .events
            .iter()
            .map(|event| format!("  {event:?}"));
        let events = events.collect::<Vec<_>>().join("\n");
        Err(format!("seed {seed}: {what}; deeds {deeds:?}\n{events}"))
    };
    let mut convicted = world.memory.convicted.keys();
    if let Some(honest) = convicted.find(|id| **id != liar) {
        return fault(format!("{} is honest and was convicted", honest.short()));
    }
    match (record, ended) {
        (Some(record), _) if record != expected => {
            return fault("a wrong record was accepted".to_string());
        }
        (Some(_), _) => {}
        (None, Some(JobEvent::Failed(why))) => {
            return fault(format!("one liar ended the job: {why}"));
        }
        (None, _) => return fault("the job has no end".to_string()),
    }
    if let Err(error) = bundle::verify(&world.memory.bundle(&world.new)) {
        return fault(format!("its proof does not hold: {error}"));
    }
    let found = match world.memory.convicted.get(&liar) {
        Some(offence) => format!("convicted: {}", offence.as_str()),
        None => "not convicted".to_string(),
    };
    let deed = deeds.first().map_or("nothing", String::as_str);
    Ok(format!("{deed} -> {found}"))
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CONCORD_SEEDS") else {
        return SEEDS;
    };
    let range = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("CONCORD_SEEDS is {text:?}, not such as 0..10000"))
}

#[test]
fn no_generated_liar_changes_a_record_or_has_the_honest_convicted() {
    let expected = [alone(false), alone(true)];
    let (mut outcomes, mut faults) = (BTreeMap::<String, u32>::new(), Vec::new());
    for seed in seeds() {
        match outcome(seed, expected) {
            Ok(what) => *outcomes.entry(what).or_default() += 1,
            Err(fault) => faults.push(fault),
        }
    }
    for (what, times) in &outcomes {
        println!("{times:>6}  {what}");
    }
    let count = faults.len();
    faults.truncate(5);
    assert!(count == 0, "{count} faults, such as\n{}", faults.join("\n"));
}
