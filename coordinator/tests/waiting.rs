//! A job that waits says for what, and one that cannot be done says why: nobody is left without a
//! word.

use concord_simulator as sim;

use concord_coordinator::core::{NewJob, Question, SessionId};
use concord_proto::client::{ClientResponse, JobEvent};
use concord_proto::session::{Role, ToCoordinator};
use concord_proto::{JobId, WorkerId};
use concord_verify::training::bundle;
use sim::bare::Bare;
use sim::job::{ALWAYS, job};
use sim::world::{Checker, MS, SECOND, World, key};

/// Jobs that differ in the number of their steps.
fn named(steps: u32, name: &str) -> NewJob {
    let mut new = job(steps, (1, 1), false);
    new.submission.options.name = name.to_string();
    new
}

fn ready(job: JobId, epoch: u32) -> ToCoordinator {
    ToCoordinator::Ready { job, epoch }
}

fn failed(job: JobId, epoch: u32, reason: &str, permanent: bool) -> ToCoordinator {
    ToCoordinator::Failed {
        job,
        epoch,
        reason: reason.to_string(),
        permanent,
    }
}

fn has(words: &[&str], part: &str) -> bool {
    words.iter().any(|words| words.contains(part))
}

#[test]
fn a_job_says_which_one_runs_before_it() {
    let mut pool = Bare::new();
    let first = pool.submit(named(3, "corpus"));
    let second = pool.submit(named(4, "chat"));
    let third = pool.submit(named(5, "code"));
    assert_eq!(pool.waits(first), ["workers: 0 of 1 are here"]);
    let runs = format!("job {} (corpus) runs first", first.0.short());
    assert_eq!(pool.waits(second), [runs.as_str()]);
    assert_eq!(
        pool.waits(third),
        [format!("{runs}, and 1 more before this one")]
    );
    pool.pass(5 * SECOND, &[]);
    assert_eq!(pool.waits(third).len(), 1, "told once");
    pool.ask(Question::Cancel(first));
    pool.pass(2 * SECOND, &[]);
    assert_eq!(pool.waits(second)[1..], ["workers: 0 of 1 are here"]);
    let runs = format!("job {} (chat) runs first", second.0.short());
    assert_eq!(pool.waits(third)[1..], [runs.as_str()]);
}

/// A job that is submitted again waits for its turn: two plans at a time would take each other's
/// workers.
#[test]
fn a_job_that_is_submitted_again_pushes_none_out() {
    let mut pool = Bare::new();
    let first = pool.submit(named(3, "corpus"));
    let second = pool.submit(named(4, "chat"));
    pool.ask(Question::Cancel(first));
    let worker = pool.worker(1);
    pool.say(worker, ready(second, 1));
    pool.submit(named(3, "corpus"));
    pool.pass(3 * SECOND, &[worker]);
    let runs = format!("job {} (chat) runs first", second.0.short());
    assert!(has(&pool.waits(first), &runs), "{:?}", pool.waits(first));
}

#[test]
fn the_reason_is_told_anew_when_it_changes_and_not_too_often() {
    let mut pool = Bare::new();
    let mut new = job(3, (2, 1), false);
    new.submission.options.checkers = 1;
    let id = pool.submit(new);
    let first = pool.worker(1);
    pool.pass(2 * SECOND, &[first]);
    let second = pool.worker(2);
    pool.pass(2 * SECOND, &[first, second]);
    let all = [
        "workers: 0 of 2 are here",
        "workers: 1 of 2 are here",
        "checkers: 0 of 1 are here",
    ];
    assert_eq!(pool.waits(id), all);
    for number in 3..53 {
        pool.close(second);
        let other = pool.worker(number);
        pool.close(other);
        pool.pass(100 * MS, &[first]);
    }
    let told = pool.waits(id).len();
    assert!(told <= all.len() + 6, "{told} in 5 s");
}

#[test]
fn the_last_worker_that_goes_is_missed_at_once() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    pool.pass(2 * SECOND, &[]);
    let worker = pool.worker(1);
    pool.say(worker, ready(id, 1));
    pool.close(worker);
    let waits = pool.waits(id);
    assert!(waits.last().unwrap().contains("none is left"), "{waits:?}");
}

#[test]
fn a_worker_that_fails_again_and_again_is_named_with_its_reason() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    pool.pass(2 * SECOND, &[]);
    let worker = pool.worker(1);
    for epoch in 1..3 {
        pool.say(worker, failed(id, epoch, "cannot write: disk full", false));
    }
    pool.pass(SECOND, &[worker]);
    let (waits, name) = (pool.waits(id), key(1).public().short());
    let last = waits.last().unwrap();
    for words in [name.as_str(), "tried again", "disk full"] {
        assert!(last.contains(words), "{waits:?}");
    }
}

#[test]
fn the_worker_that_holds_a_job_up_is_named() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (2, 1), false));
    let sessions: Vec<SessionId> = (1..3).map(|number| pool.worker(number)).collect();
    let names = [1, 2].map(|number| key(number).public().short());
    pool.say(sessions[0], ready(id, 1));
    pool.pass(13 * SECOND, &sessions);
    let loading = format!("worker {} to load", names[1]);
    assert!(has(&pool.waits(id), &loading), "{:?}", pool.waits(id));
    pool.say(sessions[1], ready(id, 1));
    pool.pass(13 * SECOND, &sessions);
    let waits = pool.waits(id);
    assert!(
        has(&waits, "to finish the gradients of step 1"),
        "{waits:?}"
    );
    let told = waits.len();
    pool.pass(20 * SECOND, &sessions);
    assert_eq!(pool.waits(id).len(), told, "the same words are told once");
}

fn is_lost(pool: &Bare) -> bool {
    let lost = |(_, event): &(JobId, JobEvent)| matches!(event, JobEvent::Lost { .. });
    pool.events.iter().any(lost)
}

const DIVERGED: &str = "step 12: loss of microbatch 0: element 0 is NaN";

/// What fails on every machine is no loss of a worker.
#[test]
fn a_computation_that_fails_fails_the_job_with_its_reason() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let worker = pool.worker(1);
    pool.say(worker, ready(id, 1));
    pool.say(worker, failed(id, 1, DIVERGED, true));
    let end = JobEvent::Failed(DIVERGED.to_string());
    assert_eq!(pool.events.last(), Some(&(id, end)));
    assert!(!is_lost(&pool), "{:?}", pool.events);
}

#[test]
fn another_worker_has_to_fail_in_the_same_way() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let sessions: Vec<SessionId> = (1..3).map(|number| pool.worker(number)).collect();
    // The first plan is of the one that was there first.
    pool.say(sessions[0], ready(id, 1));
    pool.say(sessions[0], failed(id, 1, DIVERGED, true));
    let Some((_, JobEvent::Planned { reason, plan, .. })) = pool.events.last() else {
        panic!("{:?}", pool.events);
    };
    assert!(
        reason.contains(DIVERGED) && reason.contains("try without it"),
        "{reason}"
    );
    assert!(plan.slot(&key(2).public()).is_some());
    pool.say(sessions[1], ready(id, 2));
    pool.say(sessions[1], failed(id, 2, DIVERGED, true));
    let end = JobEvent::Failed(DIVERGED.to_string());
    assert_eq!(pool.events.last(), Some(&(id, end)));
    assert!(!is_lost(&pool), "{:?}", pool.events);
}

/// All workers of a plan may meet the same numbers. What they say of a plan that is over is late.
#[test]
fn without_anyone_else_who_could_do_it_the_job_has_failed() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (2, 1), false));
    let sessions: Vec<SessionId> = (1..3).map(|number| pool.worker(number)).collect();
    for session in &sessions {
        pool.say(*session, failed(id, 1, DIVERGED, true));
    }
    let is_end = |(_, event): &(JobId, JobEvent)| matches!(event, JobEvent::Failed(_));
    assert!(!pool.events.iter().any(is_end), "one word of one plan");
    pool.say(sessions[1], failed(id, 2, DIVERGED, true));
    let end = JobEvent::Failed(DIVERGED.to_string());
    assert_eq!(pool.events.last(), Some(&(id, end)));
    assert!(!is_lost(&pool), "{:?}", pool.events);
}

/// The members of the plan in effect, and its epoch.
fn planned(pool: &Bare) -> (Vec<WorkerId>, u32) {
    let plans = pool.events.iter().rev();
    let mut plans = plans.filter_map(|(_, event)| match event {
        JobEvent::Planned { plan, .. } => Some(plan),
        _ => None,
    });
    let plan = plans.next().expect("a plan");
    (plan.workers().map(|(_, id)| id).collect(), plan.epoch)
}

/// One worker sends numbers on which no other can compute. Those say that nobody can do the job,
/// and go on without the one beside which they said so; if they still fail then, the job does.
#[test]
fn who_makes_all_others_fail_does_not_fail_the_job() {
    let mut pool = Bare::new();
    let mut new = job(3, (2, 1), false);
    new.submission.options.min_workers = 3;
    let id = pool.submit(new);
    let sessions: Vec<SessionId> = (1..4).map(|number| pool.worker(number)).collect();
    let fails = |pool: &mut Bare, worker: WorkerId, epoch: u32| {
        let index = (1..4).position(|number| key(number).public() == worker);
        pool.say(sessions[index.unwrap()], failed(id, epoch, DIVERGED, true));
    };
    let (first, epoch) = planned(&pool);
    fails(&mut pool, first[1], epoch);
    let (second, epoch) = planned(&pool);
    let [liar, other] = second[..] else {
        panic!("{second:?}");
    };
    let (liar, other) = match first.contains(&liar) {
        true => (liar, other),
        false => (other, liar),
    };
    fails(&mut pool, other, epoch);
    let (third, epoch) = planned(&pool);
    assert_eq!(third.len(), 2, "{third:?}");
    assert!(!third.contains(&liar), "both failed beside it");
    let is_end = |(_, event): &(JobId, JobEvent)| matches!(event, JobEvent::Failed(_));
    assert!(!pool.events.iter().any(is_end));
    // It was not that one: then nothing helps.
    fails(&mut pool, third[0], epoch);
    let (last, epoch) = planned(&pool);
    assert_eq!(last, [third[1]]);
    fails(&mut pool, last[0], epoch);
    let end = JobEvent::Failed(DIVERGED.to_string());
    assert_eq!(pool.events.last(), Some(&(id, end)));
}

/// What is over cannot be stopped any more.
#[test]
fn a_job_that_is_over_is_not_cancelled() {
    let refused = |words: String| Some(ClientResponse::Refused(words));
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    pool.ask(Question::Cancel(id));
    assert_eq!(pool.answer(), Some(ClientResponse::Cancelled));
    pool.ask(Question::Cancel(id));
    let name = id.0.short();
    let words = format!("job {name} is cancelled already");
    assert_eq!(pool.answer(), refused(words));
    let mut pool = Bare::new();
    pool.submit(job(3, (1, 1), false));
    let worker = pool.worker(1);
    pool.say(worker, failed(id, 1, DIVERGED, true));
    pool.ask(Question::Cancel(id));
    let words = format!("job {name} has failed already");
    assert_eq!(pool.answer(), refused(words));
    let mut world = World::new(9, job(3, (1, 1), false));
    world.join_worker(1, 0, None);
    assert!(world.run(60 * SECOND).is_some());
    let words = format!("job {name} is completed already");
    assert_eq!(world.ask(Question::Cancel(id)), refused(words));
    assert!(matches!(
        world.memory.events.last(),
        Some(JobEvent::Completed { .. })
    ));
}

/// Members that have no part in a job do not end it, however many say that it cannot be done.
#[test]
fn strangers_do_not_fail_a_job() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let worker = pool.worker(1);
    let (spare, checker) = (pool.worker(2), pool.open(9, Role::Checker, ""));
    for stranger in [spare, checker] {
        pool.say(stranger, failed(id, 1, DIVERGED, true));
    }
    pool.say(worker, ready(id, 1));
    let is_end = |(_, event): &(JobId, JobEvent)| matches!(event, JobEvent::Failed(_));
    assert!(!pool.events.iter().any(is_end), "{:?}", pool.events);
}

#[test]
fn an_endless_reason_is_cut() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let worker = pool.worker(1);
    let endless = "\u{fc}".repeat(100_000);
    pool.say(worker, failed(id, 1, &endless, true));
    let Some((_, JobEvent::Failed(reason))) = pool.events.last() else {
        panic!("it did not fail");
    };
    assert!(
        reason.len() < 3_000 && reason.ends_with(" ..."),
        "{}",
        reason.len()
    );
}

/// Steps are audited by one of so many checkers; one of them dies.
fn audited(checkers: u8, dies: u8) -> World {
    let mut new = job(12, (1, 1), false);
    let options = &mut new.submission.options;
    options.audit_rate = ALWAYS;
    options.checkers = 1;
    let mut world = World::new(8, new);
    world.join_worker(1, 0, None);
    for number in 0..checkers {
        world.join_checker(200 + number, 0, Checker::Honest);
    }
    world.kill(key(200 + dies).public(), SECOND / 2);
    world
}

fn said(world: &World) -> Vec<&str> {
    let events = world.memory.events.iter();
    let said = events.filter_map(|event| match event {
        JobEvent::Waiting(what) => Some(what.as_str()),
        _ => None,
    });
    said.collect()
}

#[test]
fn a_checker_that_is_gone_is_missed_by_name_of_its_role() {
    let mut world = audited(1, 0);
    assert!(
        world.run(120 * SECOND).is_some(),
        "{:?}",
        world.memory.events
    );
    let said = said(&world);
    for words in [
        "0 of 1 are left",
        "the job goes on without",
        "concord checker",
    ] {
        assert!(has(&said, words), "{said:?}");
    }
    assert!(said.len() < 12, "{said:?}");
}

#[test]
fn another_checker_takes_over() {
    let auditors = [0, 1].map(|dies| {
        let mut world = audited(2, dies);
        assert!(
            world.run(60 * SECOND).is_some(),
            "{:?}",
            world.memory.events
        );
        let report = bundle::verify(&world.memory.bundle(&world.new)).unwrap();
        assert!(report.auditors.iter().all(|own| own.agreed > 0));
        report.auditors.len()
    });
    // Only one of the two audited the job when it died.
    assert_eq!(auditors.iter().sum::<usize>(), 3, "{auditors:?}");
}

/// A checker is no worker: without one the words say which is missing.
#[test]
fn a_checker_alone_is_no_worker() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let checker = pool.open(9, Role::Checker, "");
    pool.pass(3 * SECOND, &[checker]);
    assert_eq!(pool.waits(id), ["workers: 0 of 1 are here"]);
}
