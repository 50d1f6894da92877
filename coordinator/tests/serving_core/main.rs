//! Who holds which part of a model that is served: members come, go, fail and lie, one event after
//! another, and what holds after each is checked.

mod addresses;
mod audits;
mod world;

use concord_simulator as sim;

use concord_coordinator::core::{CoreEffect, CoreEvent, Question, ServingEvent, Time};
use concord_proto::client::ClientResponse;
use concord_proto::ledger::Offence;
use concord_proto::session::{Role, ToCoordinator};
use concord_proto::{Layers, WorkerId};
use sim::job::asked;
use sim::rng::Rng;
use world::{SECOND, World, id, model, pool};

#[test]
fn it_waits_for_its_workers_and_then_plans() {
    let mut world = World::new(model(2, 1, 2));
    world.pass(SECOND);
    assert!(world.state.contains("0 of 2"), "{}", world.state);
    world.join(1, Role::Worker, 10_000_000);
    world.join(200, Role::Checker, 10_000_000);
    assert!(world.state.contains("1 of 2"), "{}", world.state);
    assert!(world.pipelines.is_empty());
    world.join(2, Role::Worker, 10_000_000);
    assert_eq!(world.pipelines[&0].holders.len(), 2);
    assert!(world.state.contains("made ready"), "{}", world.state);
    world.load();
    assert!(
        world.state.contains("serves on 2 workers"),
        "{}",
        world.state
    );
    let first = world.holder(0, 0);
    assert!(world.doing(first).starts_with("serves layers 0.."));
    let spare = world.join(3, Role::Worker, 10_000_000);
    assert!(world.doing(spare).contains("to stand by"));
    world.load();
    assert!(world.doing(spare).starts_with("stands by for layers"));
    assert_eq!(
        world.pipelines[&0].epoch, 1,
        "no new plan while it runs well"
    );
}

#[test]
fn a_worker_that_stands_by_takes_over_and_the_others_keep_their_layers() {
    for stage in 0..2 {
        let mut world = pool(1);
        let lost = world.holder(0, stage);
        let kept = world.holder(0, 1 - stage);
        let layers: Vec<Layers> = world.pipelines[&0]
            .holders
            .iter()
            .map(|holder| holder.layers)
            .collect();
        world.leave(lost);
        let seen = &world.pipelines[&0];
        assert_eq!(seen.holders[1 - stage].worker, kept);
        let now: Vec<Layers> = seen.holders.iter().map(|holder| holder.layers).collect();
        assert_eq!(now, layers);
        assert_eq!(world.assigned[&kept].epoch, seen.epoch);
    }
}

#[test]
fn those_that_have_the_layers_come_before_those_that_do_not() {
    let mut world = pool(2);
    let idle: Vec<WorkerId> = world
        .assigned
        .iter()
        .filter(|(_, assignment)| assignment.stage.is_none())
        .map(|(worker, _)| *worker)
        .collect();
    assert_eq!(idle.len(), 2);
    // One of the two has just come back, and has loaded nothing.
    let (fresh, ready) = (idle[1], idle[0]);
    let number = (1..=4).find(|number| id(*number) == fresh).unwrap();
    world.join(number, Role::Worker, 1 << 40);
    world.leave(world.holder(0, 0));
    assert_eq!(world.holder(0, 0), ready);
}

#[test]
fn without_a_spare_the_rest_is_cut_anew_and_without_anyone_it_is_down() {
    let mut world = pool(0);
    world.leave(world.holder(0, 1));
    let seen = &world.pipelines[&0];
    assert_eq!(seen.holders.len(), 1, "one stage on who is left");
    assert_eq!(seen.holders[0].layers, Layers::new(0, 12));
    world.load();
    world.leave(world.holder(0, 0));
    assert!(world.pipelines[&0].holders.is_empty());
    assert!(world.state.contains("is down"), "{}", world.state);
    world.join(9, Role::Worker, 10_000_000);
    assert_eq!(world.pipelines[&0].holders.len(), 1);
}

#[test]
fn a_stage_stream_that_breaks_alone_is_a_loss_too() {
    let mut world = pool(1);
    let lost = world.holder(0, 0);
    world.lost(0, 0, false);
    assert_ne!(world.holder(0, 0), lost);
    // It said so itself, for the first time: it may only have noticed another's end.
    world.load();
    let same = world.holder(0, 1);
    let epoch = world.pipelines[&0].epoch;
    world.lost(0, 1, true);
    assert_eq!(world.holder(0, 1), same);
    assert!(world.pipelines[&0].epoch > epoch);
    world.pass(5 * SECOND);
    world.load();
    assert!(world.doing(lost).starts_with("stands by"));
}

#[test]
fn what_an_older_plan_had_is_of_no_account() {
    let mut world = pool(1);
    let worker = world.holder(0, 1);
    world.lost(0, 0, false);
    let epoch = world.pipelines[&0].epoch;
    let late = ServingEvent::Lost {
        pipeline: 0,
        epoch: epoch - 1,
        worker,
        reason: "late".to_string(),
        is_here: false,
    };
    world.apply(CoreEvent::Serving(late));
    assert_eq!(world.pipelines[&0].epoch, epoch);
}

#[test]
fn failures_move_layers_on_and_two_permanent_ones_end_it() {
    let mut world = pool(2);
    let first = world.holder(0, 0);
    // The first failure is free, and the second is not.
    world.failed(first, false);
    world.failed(first, false);
    assert_ne!(world.holder(0, 0), first);
    let second = world.holder(0, 0);
    world.failed(second, true);
    assert_ne!(world.holder(0, 0), second);
    assert!(world.doing(second).contains("cannot hold the model"));
    let third = world.holder(0, 0);
    world.failed(third, true);
    assert!(world.pipelines[&0].holders.is_empty());
    assert!(world.state.contains("cannot be served"), "{}", world.state);
    assert!(world.state.contains("it does not fit"), "{}", world.state);
}

#[test]
fn a_worker_that_leaves_is_replaced_by_one_that_is_ready() {
    let mut world = World::new(model(2, 1, 2));
    world.join(1, Role::Worker, 10_000_000);
    world.join(2, Role::Worker, 10_000_000);
    world.load();
    let leaver = world.holder(0, 0);
    let heir = world.join(3, Role::Worker, 10_000_000);
    world.say(leaver, ToCoordinator::Drain);
    world.pass(5 * SECOND);
    assert_eq!(world.holder(0, 0), leaver, "its heir is not ready");
    assert!(!world.left.contains(&leaver));
    world.load();
    assert_eq!(world.holder(0, 0), heir);
    assert!(world.left.contains(&leaver));
}

#[test]
fn a_worker_that_leaves_does_not_wait_for_ever() {
    let mut world = pool(0);
    let leaver = world.holder(0, 0);
    world.join(3, Role::Worker, 10_000_000);
    world.say(leaver, ToCoordinator::Drain);
    world.pass(70 * SECOND);
    assert!(world.left.contains(&leaver));
    assert_eq!(world.pipelines[&0].holders.len(), 2);
}

#[test]
fn a_worker_that_is_not_trusted_is_out_and_the_convicted_do_not_come_back() {
    let mut world = pool(2);
    let liar = world.holder(0, 0);
    world.apply(CoreEvent::Serving(ServingEvent::Distrusted {
        worker: liar,
        reason: "it lies".to_string(),
    }));
    assert!(world.doing(liar).contains("it lies"));
    assert_ne!(world.holder(0, 0), liar);
    let guilty = world.holder(0, 1);
    world.apply(CoreEvent::Serving(ServingEvent::Guilty {
        worker: guilty,
        offence: Offence::Equivocation,
        evidence: "two signatures".to_string(),
    }));
    assert!(world.convicted.contains(&guilty));
    assert_eq!(world.pipelines[&0].holders.len(), 2);
    world.pass(10 * SECOND);
    assert!(
        world.pipelines[&0]
            .holders
            .iter()
            .all(|holder| holder.worker != liar)
    );
}

fn refused(world: &mut World, stage: u32) {
    let epoch = world.pipelines[&0].epoch;
    world.apply(CoreEvent::Serving(ServingEvent::Refused {
        pipeline: 0,
        epoch,
        stage,
        reason: "a digest that does not fit".to_string(),
    }));
}

/// Nobody can tell which of two neighbours is wrong, until one of them does not get on with a
/// third.
#[test]
fn a_worker_that_gets_on_with_nobody_is_out() {
    for liar in 0..2 {
        let mut world = pool(3);
        let culprit = world.holder(0, liar);
        let other = world.holder(0, 1 - liar);
        let mut refusals = 0;
        while world.pipelines[&0]
            .holders
            .iter()
            .any(|holder| holder.worker == culprit)
        {
            refused(&mut world, 1);
            refusals += 1;
            assert!(refusals < 4);
            world.pass(3 * SECOND);
            world.load();
        }
        let doing = world.doing(culprit);
        let is_apart = doing.contains("is out") || doing.starts_with("stands by");
        assert!(is_apart, "{doing}");
        assert!(!world.doing(other).contains("is out"));
        assert_eq!(world.pipelines[&0].holders.len(), 2);
    }
}

#[test]
fn pipelines_are_independent() {
    let mut world = World::new(model(2, 2, 4));
    for number in 1..=4 {
        world.join(number, Role::Worker, 10_000_000);
    }
    world.load();
    assert_eq!(world.pipelines.len(), 2);
    let other = world.pipelines[&1].epoch;
    world.leave(world.holder(0, 0));
    assert_eq!(world.pipelines[&1].epoch, other);
    assert_eq!(world.pipelines[&0].holders.len(), 1);
}

#[test]
fn jobs_are_refused() {
    let mut world = pool(0);
    let new = sim::job::job(2, (1, 1), false);
    let question = Question::Submit(Box::new(new));
    let effects = world.core.apply(Time(world.now), asked(1, question));
    let refused = effects.iter().any(|effect| {
        matches!(effect, CoreEffect::Reply { response: ClientResponse::Refused(why), .. }
            if why.contains("serves a model"))
    });
    assert!(refused, "{effects:?}");
}

/// Whatever happens: no stage is held twice or by a worker that is gone, and once it is quiet again
/// there is a plan wherever there can be one.
#[test]
fn whatever_happens_there_is_a_plan_in_the_end() {
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let pipelines = 1 + rng.below(2) as u32;
        let stages = rng.below(4) as u32;
        let mut world = World::new(model(stages, pipelines, 1 + rng.below(4) as u32));
        for _ in 0..120 {
            let number = 1 + rng.below(7) as u8;
            let worker = id(number);
            match rng.below(12) {
                0..=2 if !world.sessions.values().any(|known| *known == worker) => {
                    world.join(number, Role::Worker, 1_000_000 + 500_000 * rng.below(8));
                }
                3 => world.leave(worker),
                4 => world.failed(worker, rng.below(10) == 0),
                5 => world.say(worker, ToCoordinator::Drain),
                6 | 7 => world.load(),
                8 => {
                    let planned = world
                        .pipelines
                        .iter()
                        .filter(|(_, seen)| !seen.holders.is_empty());
                    let found = planned
                        .map(|(index, seen)| (*index, seen.holders.len()))
                        .next_back();
                    if let Some((index, count)) = found {
                        let holder = rng.below(count as u64) as usize;
                        world.lost(index, holder, rng.below(2) == 0);
                    }
                }
                9 if rng.below(8) == 0 => {
                    let reason = "it lies".to_string();
                    let event = ServingEvent::Distrusted { worker, reason };
                    world.apply(CoreEvent::Serving(event));
                }
                _ => world.pass(rng.below(3 * SECOND)),
            }
        }
        world.pass(100 * SECOND);
        for number in 20..26 {
            world.join(number, Role::Worker, 100_000_000);
        }
        world.pass(100 * SECOND);
        world.load();
        let is_hopeless = world.state.contains("cannot be served");
        let planned = world
            .pipelines
            .values()
            .filter(|seen| seen.is_running)
            .count();
        assert!(is_hopeless || planned > 0, "seed {seed}: {}", world.state);
    }
}
