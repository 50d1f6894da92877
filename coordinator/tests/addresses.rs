//! Several workers that give one address: who keeps its work, and who can bring about what.

use concord_simulator as sim;

use concord_coordinator::core::SessionId;
use concord_proto::client::JobEvent;
use concord_proto::session::{Role, ToWorker};
use sim::bare::Bare;
use sim::job::job;
use sim::world::{SECOND, key};

const SHARED: &str = "concord://host:7701";

const SILENT: Option<Result<(), &str>> = Some(Err("no answer"));

fn plans(pool: &Bare) -> usize {
    let planned = |event: &JobEvent| matches!(event, JobEvent::Planned { .. });
    let events = pool.events.iter();
    events.filter(|(_, event)| planned(event)).count()
}

fn is_told_that_it_is_unreached(pool: &Bare, session: SessionId) -> bool {
    let told = |message: &ToWorker| matches!(message, ToWorker::Unreached { .. });
    let mut sent = pool.sent.iter();
    sent.any(|(to, message)| *to == session && told(message))
}

/// A pool where the worker of key 1 has proven that it is at the address, and works.
fn working() -> (Bare, SessionId) {
    let mut pool = Bare::new();
    pool.holders.insert(SHARED.to_string(), key(1).public());
    pool.submit(job(3, (1, 1), false));
    let worker = pool.open(1, Role::Worker, SHARED);
    pool.pass(8 * SECOND, &[worker]);
    assert_eq!(plans(&pool), 1);
    (pool, worker)
}

fn doing(pool: &mut Bare, number: u8) -> String {
    let id = key(number).public();
    let members = pool.status().members;
    let member = members.into_iter().find(|member| member.id == id);
    member.expect("a member").doing
}

#[test]
fn a_stranger_and_one_try_in_vain_do_not_end_a_plan() {
    let (mut pool, worker) = working();
    let at_work = doing(&mut pool, 1);
    let tried = pool.probed.len();
    pool.tries = None;
    let stranger = pool.open(2, Role::Worker, SHARED);
    pool.tries = SILENT;
    pool.pass(6 * SECOND, &[worker, stranger]);
    let of_worker = |(session, _): &&(_, String)| *session == worker;
    let tries = pool.probed[tried..].iter().filter(of_worker).count();
    assert_eq!(tries, 2, "it is tried again");
    assert_eq!(doing(&mut pool, 1), at_work);
    assert_eq!(plans(&pool), 1);
    assert!(!is_told_that_it_is_unreached(&pool, worker));
    pool.tries = Some(Ok(()));
    pool.pass(5 * SECOND, &[worker, stranger]);
    pool.pass(12 * SECOND, &[worker, stranger]);
    assert_eq!(doing(&mut pool, 1), at_work);
    assert!(pool.refusal(stranger).is_some() && pool.refusal(worker).is_none());
    assert_eq!(plans(&pool), 1);
}

#[test]
fn three_tries_in_vain_in_a_row_count() {
    let (mut pool, worker) = working();
    pool.tries = None;
    let stranger = pool.open(2, Role::Worker, SHARED);
    pool.tries = SILENT;
    pool.pass(10 * SECOND, &[worker, stranger]);
    assert!(!doing(&mut pool, 1).contains("not reached"));
    pool.pass(SECOND, &[worker, stranger]);
    let words = doing(&mut pool, 1);
    assert!(
        words.contains("not reached at concord://host:7701"),
        "{words}"
    );
    assert!(is_told_that_it_is_unreached(&pool, worker));
}

#[test]
fn one_try_in_vain_counts_once_another_has_proven_to_be_there() {
    let (mut pool, worker) = working();
    pool.holders.insert(SHARED.to_string(), key(2).public());
    let heir = pool.open(2, Role::Worker, SHARED);
    pool.pass(SECOND, &[worker, heir]);
    let refusal = pool.refusal(worker).expect("another is there");
    assert!(refusal.contains(&key(2).public().short()), "{refusal}");
    assert_eq!(pool.refusal(heir), None);
}

/// Only one of two can be connected to at an address, and a third that gives it changes nothing.
#[test]
fn the_old_and_the_new_holder_of_an_address_are_not_planned_together() {
    let mut pool = Bare::new();
    pool.holders.insert(SHARED.to_string(), key(1).public());
    let old = pool.open(1, Role::Worker, SHARED);
    pool.pass(SECOND, &[old]);
    pool.holders.insert(SHARED.to_string(), key(2).public());
    let new = pool.open(2, Role::Worker, SHARED);
    pool.tries = None;
    let id = pool.submit(job(3, (2, 1), false));
    pool.pass(SECOND, &[old, new]);
    assert_eq!(plans(&pool), 0);
    let words = pool.waits(id).last().unwrap().to_string();
    for part in [
        "1 of 2 are here",
        &key(1).public().short(),
        "shares its address concord://host:7701 with",
        &key(2).public().short(),
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let third = pool.open(3, Role::Worker, SHARED);
    pool.pass(2 * SECOND, &[old, new, third]);
    assert_eq!(plans(&pool), 0, "all three are contested");
    let other = pool.worker(4);
    pool.tries = Some(Ok(()));
    pool.pass(16 * SECOND, &[old, new, third, other]);
    assert_eq!(plans(&pool), 1);
    let is_refused = [old, new, third].map(|session| pool.refusal(session).is_some());
    assert_eq!(is_refused, [true, false, true]);
}

/// If no try is answered, a worker that is left alone at its address counts like one that always
/// was.
#[test]
fn an_address_is_contested_no_more_once_all_others_have_gone() {
    let mut pool = Bare::new();
    pool.tries = None;
    pool.submit(job(3, (1, 1), false));
    let worker = pool.open(1, Role::Worker, SHARED);
    let others = [2, 3].map(|number| pool.open(number, Role::Worker, SHARED));
    pool.pass(8 * SECOND, &[worker, others[0], others[1]]);
    pool.close(others[0]);
    pool.pass(SECOND, &[worker, others[1]]);
    assert_eq!(plans(&pool), 0, "one is left");
    pool.close(others[1]);
    pool.pass(SECOND, &[worker]);
    assert_eq!(plans(&pool), 1);
}
