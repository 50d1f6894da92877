//! Evaluations in the core: one record whatever the cut, audits of all that decides, and the state
//! that is saved where patience ends a job.

use concord_simulator as sim;

use concord_coordinator::core::NewJob;
use concord_proto::Digest;
use concord_proto::client::JobEvent;
use concord_proto::ledger::Offence;
use concord_verify::training::bundle::{self, Report};
use sim::job::{evaluated, job};
use sim::lies::{Kind, Lie};
use sim::world::{Checker, SECOND, World, key};

const STEPS: u32 = 5;
const LIMIT: u64 = 900 * SECOND;

fn told(world: &World) -> String {
    let events = world.memory.events.iter().map(|event| format!("{event:?}"));
    events.collect::<Vec<_>>().join("\n")
}

fn finish(world: &mut World, what: &str) -> (Digest, Report) {
    let Some(record) = world.run(LIMIT) else {
        panic!("{what}: not done; events:\n{}", told(world));
    };
    match bundle::verify(&world.memory.bundle(&world.new)) {
        Ok(report) => (record, report),
        Err(error) => panic!("{what}: {error}; events:\n{}", told(world)),
    }
}

fn alone(patience: Option<u32>) -> Digest {
    let mut world = World::new(1, evaluated(job(STEPS, (1, 1), false), patience));
    world.join_worker(1, 0, None);
    finish(&mut world, "alone").0
}

/// Leaves are drawn so seldom that none is by chance.
fn hardly_audited(plan: (u32, u32)) -> NewJob {
    let mut new = evaluated(job(STEPS, plan, false), None);
    new.submission.options.audit_rate = 1;
    new.submission.options.checkers = 1;
    new
}

fn join_checkers(world: &mut World) {
    world.join_checker(201, 0, Checker::Honest);
    world.join_checker(202, 0, Checker::Honest);
}

#[test]
fn every_cut_of_an_evaluated_job_gives_one_record() {
    let expected = alone(None);
    for (stages, replicas) in [(2, 1), (4, 1), (1, 2), (2, 2), (1, 5)] {
        let new = evaluated(job(STEPS, (stages, replicas), false), None);
        let mut world = World::new(2, new);
        for number in 0..stages * replicas {
            world.join_worker(number as u8 + 1, 0, None);
        }
        let what = format!("{stages}x{replicas}");
        assert_eq!(finish(&mut world, &what).0, expected, "{what}");
    }
}

#[test]
fn what_decides_is_audited_whole_and_the_rest_by_chance() {
    let mut world = World::new(3, hardly_audited((2, 1)));
    world.join_worker(1, 0, None);
    world.join_worker(2, 0, None);
    join_checkers(&mut world);
    let (_, report) = finish(&mut world, "audited");
    let audited = world.memory.events.iter().filter_map(|event| match event {
        JobEvent::Audited {
            step, evaluation, ..
        } => Some((*step, *evaluation)),
        _ => None,
    });
    let mut audited: Vec<(u32, bool)> = audited.collect();
    audited.sort_unstable();
    // Four microbatches on two stages, after each update; the evaluation before them decides
    // nothing.
    let due = (1..=STEPS).flat_map(|step| [(step, true); 8]);
    assert_eq!(audited, due.collect::<Vec<_>>());
    let [own] = &report.auditors[..] else {
        panic!("{:?}", report.auditors);
    };
    assert_eq!((report.deciding, own.deciding_unseen), (STEPS, 0));
    assert_eq!(report.audits_agreed, 8 * u64::from(STEPS));
    let detection = own.detection(own.steps);
    assert!(
        detection < 1e-6,
        "of false updates hardly any would be found: {detection}"
    );
}

#[test]
fn a_job_without_audits_says_that_its_decisions_are_not_proven() {
    let mut world = World::new(3, evaluated(job(STEPS, (1, 1), false), None));
    world.join_worker(1, 0, None);
    let (_, report) = finish(&mut world, "no audits");
    assert_eq!((report.audits_drawn, report.deciding), (0, STEPS));
    assert!(report.auditors.is_empty());
}

/// One false loss would do to choose the result: no draw has to find it.
#[test]
fn a_liar_in_an_evaluation_that_decides_is_always_found() {
    // Steps of the chain: an evaluation, then an update and an evaluation in turn.
    let (update, evaluation) = (3, 2);
    for (from_step, is_found) in [(evaluation, true), (update, false)] {
        let mut world = World::new(7, hardly_audited((1, 1)));
        let kind = Kind::WrongForward;
        world.join_worker(1, 0, Some(Lie { kind, from_step }));
        world.join_fast_worker(101, 0, None, 1_000);
        join_checkers(&mut world);
        let (record, _) = finish(&mut world, "a liar");
        let convicted = world.memory.convicted.iter().map(|(&id, &of)| (id, of));
        let convicted: Vec<_> = convicted.collect();
        assert_eq!(convicted, [(key(1).public(), Offence::WrongResult)]);
        assert_eq!(record, alone(None));
        let evidence = world.memory.events.iter().find_map(|event| match event {
            JobEvent::Convicted { evidence, .. } => Some(evidence.clone()),
            _ => None,
        });
        let evidence = evidence.unwrap();
        // The lie of an update is found in the evaluation after it.
        let words = match is_found {
            true => "in the evaluation after step 1:",
            false => "in the evaluation after step 2:",
        };
        assert!(evidence.contains(words), "{evidence}");
    }
}

#[test]
fn where_patience_ends_a_job_its_last_state_is_saved() {
    let mut new = evaluated(job(60, (2, 1), false), Some(1));
    new.submission.options.checkpoint_every = 50;
    new.submission.options.checkpoints_kept = 9;
    let mut world = World::new(5, new);
    world.join_worker(1, 0, None);
    world.join_worker(2, 0, None);
    let (_, report) = finish(&mut world, "early");
    assert!(report.steps_left > 10, "{}", report.steps_left);
    let saved = world.memory.events.iter().filter_map(|event| match event {
        JobEvent::Saved { steps, .. } => Some(*steps),
        _ => None,
    });
    assert_eq!(saved.collect::<Vec<_>>(), [report.steps]);
}
