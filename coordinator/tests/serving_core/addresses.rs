//! Workers that give the address of another one.

use concord_coordinator::core::CoreEvent;
use concord_proto::WorkerId;
use concord_proto::session::Role;

use super::world::{SECOND, World, id, model, pool};

const MEMORY: u64 = 10_000_000;

fn holds(world: &World, worker: WorkerId) -> bool {
    let holders = &world.pipelines[&0].holders;
    holders.iter().any(|holder| holder.worker == worker)
}

/// Not one of these workers is reached by the coordinator, as behind a firewall.
#[test]
fn who_gives_the_address_of_a_worker_takes_no_stage_from_it() {
    let mut world = pool(0);
    world.pass(20 * SECOND);
    let before = [1, 2].map(|number| holds(&world, id(number)));
    assert_eq!(before, [true, true]);
    for (squatter, number) in [(3, 1), (4, 2)] {
        let endpoint = format!("concord://worker-{number}");
        world.join_at(squatter, Role::Worker, 1 << 40, &endpoint);
    }
    world.pass(SECOND);
    // A stream that breaks makes a new plan; all that are fit may have part in it.
    world.lost(0, 0, true);
    world.load();
    let words = "shares its address concord://worker-1 with worker";
    for (number, other) in [(1, 3), (3, 1)] {
        let doing = world.doing(id(number));
        assert!(doing.contains(words), "{doing}");
        assert!(doing.contains(&id(other).short()), "{doing}");
    }
    for (worker, is_holder) in [(1, true), (2, true), (3, false), (4, false)] {
        assert_eq!(holds(&world, id(worker)), is_holder, "worker {worker}");
    }
    assert!(!world.assigned.contains_key(&id(3)), "not even to stand by");
    // The place of one that goes is free.
    world.leave(id(1));
    assert!(holds(&world, id(3)) && !world.doing(id(3)).contains("shares"));
}

#[test]
fn of_workers_at_one_address_the_first_counts_and_the_clash_is_named() {
    let mut world = World::new(model(2, 1, 2));
    world.join(1, Role::Worker, MEMORY);
    world.pass(SECOND);
    world.join_at(2, Role::Worker, MEMORY, "concord://worker-1");
    for part in [
        "1 of 2 are there",
        &id(2).short(),
        "shares its address concord://worker-1 with",
        &id(1).short(),
        "--advertise",
    ] {
        assert!(world.state.contains(part), "{part}: {}", world.state);
    }
    world.pass(SECOND);
    world.join(3, Role::Worker, MEMORY);
    assert!(holds(&world, id(1)) && holds(&world, id(3)));
}

#[test]
fn a_proof_counts_for_more_than_who_came_first() {
    let mut world = World::new(model(2, 1, 2));
    world.join(1, Role::Worker, MEMORY);
    world.pass(SECOND);
    world.join_at(2, Role::Worker, MEMORY, "concord://worker-1");
    let session = world.session(&id(2)).unwrap();
    let failure = None;
    world.apply(CoreEvent::Probed { session, failure });
    assert!(world.state.contains("1 of 2 are there"), "{}", world.state);
    world.join(3, Role::Worker, MEMORY);
    assert!(holds(&world, id(2)) && holds(&world, id(3)));
}
