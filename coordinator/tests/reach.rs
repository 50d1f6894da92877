//! Workers that do not reach each other are named and left out, and the record stays what it is.

use concord_simulator as sim;

use concord_proto::client::JobEvent;
use concord_proto::{Digest, WorkerId};
use sim::job::job;
use sim::world::{SECOND, World, key};

const STEPS: u32 = 7;

/// A worker that is not reached costs seconds, not the time after which a step counts as stalled.
const LIMIT: u64 = 25 * SECOND;

fn alone() -> Digest {
    let mut world = World::new(1, job(STEPS, (1, 1), false));
    world.join_worker(1, 0, None);
    world.run(LIMIT).expect("one honest worker is enough")
}

fn id(number: u8) -> WorkerId {
    key(number).public()
}

/// A pool of so many workers, all there from the beginning.
fn pool(seed: u64, plan: (u32, u32), workers: u8) -> (World, Vec<WorkerId>) {
    let mut new = job(STEPS, plan, false);
    new.submission.options.min_workers = u32::from(workers);
    let mut world = World::new(seed, new);
    let ids = (1..=workers).map(|number| world.join_worker(number, 0, None));
    let ids = ids.collect();
    (world, ids)
}

fn finish(world: &mut World, what: &str) -> Digest {
    let record = world.run(LIMIT);
    record.unwrap_or_else(|| panic!("{what}: {:#?}", world.memory.events))
}

/// Who was lost, and why.
fn lost(world: &World) -> Vec<(WorkerId, String)> {
    let events = world.memory.events.iter();
    let lost = events.filter_map(|event| match event {
        JobEvent::Lost { worker, reason } => Some((*worker, reason.clone())),
        _ => None,
    });
    lost.collect()
}

fn is_in_last_plan(world: &World, worker: WorkerId) -> bool {
    let last = world.memory.plans.values().next_back();
    last.is_some_and(|plan| plan.slot(&worker).is_some())
}

#[test]
fn a_worker_that_nobody_reaches_is_named_with_its_address_and_done_without() {
    let expected = alone();
    for (plan, workers) in [
        ((2, 1), 2),
        ((2, 1), 3),
        ((1, 2), 2),
        ((2, 2), 4),
        ((3, 1), 4),
    ] {
        for number in 1..=workers {
            let (mut world, ids) = pool(5, plan, workers);
            world.links.cut(id(number), &ids, true);
            let what = format!("{plan:?} of {workers}, worker {number} out of reach");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
            let lost = lost(&world);
            // A spare may have been out of reach without being missed.
            if lost.is_empty() {
                assert!(
                    workers > (plan.0 * plan.1) as u8,
                    "{what}: nothing was lost"
                );
                continue;
            }
            assert_eq!(lost.len(), 1, "{what}: {lost:?}");
            let (worker, reason) = &lost[0];
            assert_eq!(*worker, id(number), "{what}: {reason}");
            for words in [
                "cannot reach",
                &format!("concord://w{}", worker.short()),
                "refused",
            ] {
                assert!(reason.contains(words), "{what}: {reason}");
            }
            assert!(!is_in_last_plan(&world, id(number)), "{what}");
            assert!(world.memory.convicted.is_empty(), "{what}");
        }
    }
}

/// A worker that reaches nobody, or says so, is the one that is left out as soon as it has said it
/// of two.
#[test]
fn a_worker_that_reaches_nobody_leaves_itself_out() {
    let expected = alone();
    for seed in 0..5 {
        let (mut world, ids) = pool(seed, (1, 3), 3);
        world.links.cut(id(2), &ids, false);
        let what = format!("seed {seed}");
        assert_eq!(finish(&mut world, &what), expected, "{what}");
        let lost = lost(&world);
        assert!((1..=2).contains(&lost.len()), "{what}: {lost:?}");
        if lost.len() == 2 {
            assert_eq!(lost[1].0, id(2), "{what}: {lost:?}");
        }
        // Each worker of the last plan reaches all others in it.
        let last = world.memory.plans.values().next_back().expect("a plan");
        let workers: Vec<WorkerId> = last.workers().map(|(_, id)| id).collect();
        assert!(workers.len() == 1 || !workers.contains(&id(2)), "{what}");
    }
}

/// A worker that the coordinator does not reach is in no plan, and nobody is blamed for it.
#[test]
fn whom_the_coordinator_does_not_reach_has_no_part() {
    let expected = alone();
    for plan in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let slots = plan.0 * plan.1;
        let workers = slots as u8 + 1;
        for number in 1..=workers {
            let (mut world, ids) = pool(6, plan, workers);
            world.links.cut(id(number), &ids, true);
            world.links.hidden.insert(id(number));
            world.new.submission.options.min_workers = slots;
            world.replay_submission();
            let what = format!("{plan:?}, worker {number} is hidden");
            assert_eq!(finish(&mut world, &what), expected, "{what}");
            assert_eq!(lost(&world), [], "{what}");
            let mut plans = world.memory.plans.values();
            let is_planned = plans.any(|plan| plan.slot(&id(number)).is_some());
            assert!(!is_planned, "{what}: {:?}", world.memory.plans);
            assert!(world.memory.convicted.is_empty(), "{what}");
        }
    }
}

/// Alone it would do the whole job, and nobody could open what it claims.
#[test]
fn a_worker_that_is_not_reached_gets_nothing_until_it_is() {
    let (mut world, _) = pool(7, (1, 1), 1);
    world.links.hidden.insert(id(1));
    assert_eq!(world.run(50 * SECOND), None);
    assert!(world.memory.plans.is_empty(), "{:?}", world.memory.plans);
    let Some(JobEvent::Waiting(words)) = world.memory.events.last() else {
        panic!("{:?}", world.memory.events);
    };
    let name = id(1).short();
    let expected = format!(
        "worker {name} is not reached at concord://w{name}: no answer; give it an --advertise that \
         others can reach"
    );
    assert!(words.contains(&expected), "{words}");
    let (mut world, _) = pool(7, (1, 1), 1);
    world.links.hidden.insert(id(1));
    world.links.shown_from = Some(40 * SECOND);
    assert_eq!(world.run(50 * SECOND), Some(alone()));
    assert!(lost(&world).is_empty());
    assert_eq!(world.memory.plans.len(), 1);
}
