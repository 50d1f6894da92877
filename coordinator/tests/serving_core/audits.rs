//! What judges say, and what follows from it.

use std::collections::BTreeSet;

use concord_coordinator::core::{CoreEvent, ServingEvent};
use concord_proto::serving::AnswerVerdict;
use concord_proto::session::{Role, ToCoordinator};
use concord_proto::{Digest, Layers, WorkerId};

use super::world::{SECOND, World, id, pool};

fn audit(world: &mut World, signers: Vec<WorkerId>) {
    world.apply(CoreEvent::Serving(ServingEvent::Audit {
        receipt: Digest([3; 32]),
        name: "answer".to_string(),
        signers,
    }));
}

fn answer(world: &mut World, verdict: &AnswerVerdict) -> WorkerId {
    let (judge, order) = world.orders.pop().expect("an order");
    let verdict = verdict.clone();
    world.say(judge, ToCoordinator::AnswerVerdict { order, verdict });
    judge
}

#[test]
fn a_judge_that_is_alone_with_its_word_is_convicted_itself() {
    let mut world = pool(0);
    let signers: Vec<WorkerId> = (0..2).map(|stage| world.holder(0, stage)).collect();
    for number in 200..203 {
        world.join(number, Role::Checker, 10_000_000);
    }
    audit(&mut world, signers.clone());
    let accuser = answer(
        &mut world,
        &AnswerVerdict::WrongStage {
            worker: signers[0],
            layers: Layers::new(0, 6),
            expected: Digest([1; 32]),
            claimed: Digest([2; 32]),
        },
    );
    let second = answer(&mut world, &AnswerVerdict::Agrees);
    let third = answer(&mut world, &AnswerVerdict::Agrees);
    assert!(accuser != second && second != third);
    assert_eq!(world.convicted, BTreeSet::from([accuser]));
    assert_eq!(world.audits, (1, 0));
    for judge in [second, third] {
        assert_eq!(world.member(judge).audits_passed, 1, "its word counted");
    }
    // A second answer to the same order counts for nothing.
    world.orders.push((second, 1));
    answer(&mut world, &AnswerVerdict::Agrees);
    assert_eq!(world.audits, (1, 0));
}

#[test]
fn no_party_judges_itself_and_nobody_accuses_strangers() {
    let mut world = pool(1);
    let signers: Vec<WorkerId> = (0..2).map(|stage| world.holder(0, stage)).collect();
    audit(&mut world, signers.clone());
    let stranger = AnswerVerdict::WrongDraw {
        worker: id(77),
        index: 0,
        expected: 1,
        found: 2,
    };
    let judge = answer(&mut world, &stranger);
    assert!(!signers.contains(&judge));
    assert!(world.orders.is_empty(), "nobody else may judge");
    world.pass(60 * SECOND);
    assert_eq!(world.audits, (0, 0));
    assert!(world.convicted.is_empty());
    assert_eq!(world.pipelines[&0].holders.len(), 2);
}

#[test]
fn a_checker_that_does_not_answer_is_passed_over() {
    let mut world = pool(0);
    let signers: Vec<WorkerId> = (0..2).map(|stage| world.holder(0, stage)).collect();
    world.join(200, Role::Checker, 10_000_000);
    world.join(201, Role::Checker, 10_000_000);
    audit(&mut world, signers);
    let (silent, _) = world.orders.pop().unwrap();
    world.pass(61 * SECOND);
    let judge = answer(&mut world, &AnswerVerdict::Agrees);
    assert_ne!(judge, silent);
    assert_eq!(world.audits, (1, 0));
}
