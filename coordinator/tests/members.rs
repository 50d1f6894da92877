//! Who is taken in: addresses that nobody can connect to, and two processes with one key.

use concord_simulator as sim;

use concord_coordinator::core::{CoreEvent, SessionId};
use concord_proto::AttemptId;
use concord_proto::client::JobEvent;
use concord_proto::ledger::entry_digest;
use concord_proto::session::{Role, ToCoordinator, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, FirstHalf, Signed, leaf_root};
use sim::bare::Bare;
use sim::job::job;
use sim::world::{MS, SECOND, key};

#[test]
fn an_address_that_nobody_can_connect_to_is_refused_by_name() {
    for (endpoint, words) in [
        ("", "concord://KEY@HOST:PORT"),
        ("127.0.0.1:9", "begin with concord://"),
        ("ftp://x:1", "not ftp://"),
        ("https://x:1", "only concord://"),
        ("concord://a b:1", "character ' '"),
        ("concord://0.0.0.0:7701", "nobody can connect to"),
        ("concord://[::]:7701", "nobody can connect to"),
        ("concord://x:0", "no port"),
        ("concord://user@x:1", "is no key"),
        ("concord://x:1/path", "host and port"),
    ] {
        let mut pool = Bare::new();
        let session = pool.open(1, Role::Worker, endpoint);
        let refusal = pool.refusal(session).expect(endpoint);
        assert!(refusal.contains(words), "{endpoint}: {refusal}");
        assert!(refusal.contains("--advertise"), "{refusal}");
        assert_eq!(pool.closed, [session]);
        assert!(pool.status().members.is_empty() && pool.probed.is_empty());
    }
}

#[test]
fn only_workers_need_an_address_and_only_theirs_is_tried() {
    let mut pool = Bare::new();
    let checker = pool.open(1, Role::Checker, "");
    assert!(pool.is_welcome(checker) && pool.probed.is_empty());
    let worker = pool.worker(2);
    assert_eq!(pool.probed, [(worker, "concord://worker-2:1".to_string())]);
}

const SHARED: &str = "concord://host:7701";

/// Two workers that prove that they are at one address: one behind a proxy, say.
#[test]
fn an_address_is_one_workers() {
    let mut pool = Bare::new();
    let first = pool.open(1, Role::Worker, SHARED);
    pool.pass(SECOND, &[first]);
    let second = pool.open(2, Role::Worker, SHARED);
    pool.pass(6 * SECOND, &[first, second]);
    let refusal = pool.refusal(second).expect("the address twice");
    assert!(refusal.contains("is the address of worker"), "{refusal}");
    assert!(pool.is_welcome(first) && !pool.closed.contains(&first));
    pool.close(first);
    let third = pool.open(2, Role::Worker, SHARED);
    pool.pass(6 * SECOND, &[third]);
    assert_eq!(pool.refusal(third), None, "it is free again");
    assert_eq!(pool.status().members[0].doing, "idle");
}

/// A worker that cannot prove its address gets no work, and keeps no work from one that can, in
/// whatever order they come, and whether the address was tried before or not.
#[test]
fn an_address_goes_to_who_can_prove_it() {
    for (is_first, are_tried) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut pool = Bare::new();
        let owner = key(1).public();
        pool.holders.insert(SHARED.to_string(), owner);
        pool.tries = are_tried.then_some(Ok(()));
        let id = pool.submit(job(3, (1, 1), false));
        let numbers = if is_first { [1, 2] } else { [2, 1] };
        let sessions = numbers.map(|number| pool.open(number, Role::Worker, SHARED));
        assert!(sessions.iter().all(|session| pool.is_welcome(*session)));
        pool.tries = None;
        pool.pass(SECOND, &sessions);
        pool.tries = Some(Ok(()));
        pool.pass(7 * SECOND, &sessions);
        let what = format!("{is_first} {are_tried}");
        let [place, other] = if is_first { [0, 1] } else { [1, 0] };
        assert_eq!(pool.refusal(sessions[place]), None, "{what}");
        let refusal = pool.refusal(sessions[other]).expect(&what);
        assert!(refusal.contains(&owner.short()), "{what}: {refusal}");
        assert_eq!(pool.closed, [sessions[other]], "{what}");
        let members = pool.status().members;
        assert_eq!(members.len(), 1, "{what}");
        assert_eq!((members[0].id, plans(&pool)), (owner, 1), "{what}");
        let assigned = pool.sent.iter().filter(|(to, message)| {
            *to == sessions[other] && matches!(message, ToWorker::Assign(_))
        });
        assert_eq!(assigned.count(), 0, "{what}: {:?}", pool.waits(id));
    }
}

/// Where nobody proves it, both are tried again, and none of the two works.
#[test]
fn an_address_that_nobody_proves_is_nobodys() {
    let mut pool = Bare::new();
    pool.tries = None;
    pool.submit(job(3, (1, 1), false));
    let sessions = [1, 2].map(|number| pool.open(number, Role::Worker, SHARED));
    pool.pass(30 * SECOND, &sessions);
    assert_eq!((plans(&pool), pool.closed.len()), (0, 0));
    assert!(pool.probed.len() > 6, "{:?}", pool.probed);
    pool.tries = Some(Err(REFUSED));
    pool.pass(30 * SECOND, &sessions);
    assert_eq!((plans(&pool), pool.closed.len()), (0, 0));
}

#[test]
fn what_peers_say_is_shown_on_one_line() {
    let mut pool = Bare::new();
    let name = "line one\n\u{1b}[31mline two";
    let mut new = job(3, (1, 1), false);
    new.submission.options.name = name.to_string();
    let id = pool.submit(new);
    let worker = pool.worker(1);
    pool.pass(2 * SECOND, &[worker]);
    for (epoch, permanent) in [(1, false), (2, true)] {
        let reason = "no room\r\n\u{1b}]0;title\u{7}done".to_string();
        pool.say(
            worker,
            ToCoordinator::Failed {
                job: id,
                epoch,
                reason,
                permanent,
            },
        );
        pool.pass(SECOND, &[worker]);
    }
    let status = pool.status();
    assert_eq!(status.jobs[0].name, "line one [31mline two");
    let told = format!("{:?} {:?}", pool.events, status.jobs);
    assert!(told.contains("no room ]0;title done"), "{told}");
    for escaped in ["\\n", "\\r", "\\u{1b}", "\\u{7}"] {
        assert!(!told.contains(escaped), "{escaped}: {told}");
    }
}

#[test]
fn a_worker_that_is_not_reached_learns_of_it_and_the_status_shows_it() {
    let mut pool = Bare::new();
    let session = pool.worker(1);
    is_missed(&mut pool, session);
    let told = pool.sent.iter().any(|(to, message)| {
        let why = |reason: &str| reason.contains("connection refused");
        *to == session && matches!(message, ToWorker::Unreached { reason } if why(reason))
    });
    assert!(told, "{:?}", pool.sent);
    let doing = pool.status().members[0].doing.clone();
    assert!(
        doing.contains("not reached at concord://worker-1:1"),
        "{doing}"
    );
    let failure = None;
    pool.apply(CoreEvent::Probed { session, failure });
    assert_eq!(pool.status().members[0].doing, "idle");
}

/// A worker that proved its address once is missed only after several tries in a row.
fn is_missed(pool: &mut Bare, session: SessionId) {
    for _ in 0..3 {
        let failure = Some(REFUSED.to_string());
        pool.apply(CoreEvent::Probed { session, failure });
    }
}

fn plans(pool: &Bare) -> usize {
    let planned = |event: &JobEvent| matches!(event, JobEvent::Planned { .. });
    let events = pool.events.iter();
    events.filter(|(_, event)| planned(event)).count()
}

const REFUSED: &str = "connection refused";

#[test]
fn who_is_not_reached_is_tried_again_and_planned_once_it_is() {
    let mut pool = Bare::new();
    pool.tries = Some(Err(REFUSED));
    let id = pool.submit(job(3, (1, 1), false));
    let session = pool.worker(1);
    pool.pass(32 * SECOND, &[session]);
    assert_eq!((pool.probed.len(), plans(&pool)), (3, 0));
    let words = pool.waits(id).last().unwrap().to_string();
    for part in [
        &key(1).public().short(),
        "concord://worker-1:1: connection",
        "--advertise",
    ] {
        assert!(words.contains(part), "{words}");
    }
    let told = pool.sent.iter();
    let told = told.filter(|(_, message)| matches!(message, ToWorker::Unreached { .. }));
    assert_eq!(told.count(), 1, "the same words are told once");
    pool.tries = Some(Ok(()));
    pool.pass(15 * SECOND, &[session]);
    assert_eq!((pool.probed.len(), plans(&pool)), (4, 1));
    pool.pass(60 * SECOND, &[session]);
    assert_eq!(pool.probed.len(), 4, "it is reached");
}

/// There may be too many addresses to try: a missing answer holds nobody up for long.
#[test]
fn a_newcomer_waits_for_the_first_answer_but_not_for_ever() {
    let mut pool = Bare::new();
    pool.tries = None;
    pool.submit(job(3, (1, 1), false));
    let session = pool.worker(1);
    pool.pass(4_900 * MS, &[session]);
    assert_eq!(plans(&pool), 0);
    pool.pass(200 * MS, &[session]);
    assert_eq!((pool.probed.len(), plans(&pool)), (1, 1));
    pool.pass(10 * SECOND, &[session]);
    assert_eq!(pool.probed.len(), 2, "it is tried again");
    // Meanwhile it counts as reached.
    let mut pool = Bare::new();
    pool.tries = None;
    let session = pool.worker(1);
    pool.pass(15_200 * MS, &[session]);
    assert_eq!(pool.probed.len(), 2);
    pool.submit(job(3, (1, 1), false));
    assert_eq!(plans(&pool), 1);
}

#[test]
fn a_plan_made_before_the_answer_is_given_up_at_a_boundary() {
    let mut pool = Bare::new();
    let id = pool.submit(job(3, (1, 1), false));
    let session = pool.worker(1);
    pool.pass(2 * SECOND, &[session]);
    assert_eq!(plans(&pool), 1);
    is_missed(&mut pool, session);
    pool.say(session, ToCoordinator::Ready { job: id, epoch: 1 });
    assert_eq!(plans(&pool), 1);
    let words = pool.waits(id).last().unwrap().to_string();
    assert!(
        words.contains("is not reached at concord://worker-1:1"),
        "{words}"
    );
    let is_lost = |event: &JobEvent| matches!(event, JobEvent::Lost { .. });
    assert!(!pool.events.iter().any(|(_, event)| is_lost(event)));
}

#[test]
fn a_key_whose_session_is_alive_is_not_given_to_another() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    pool.pass(SECOND, &[first]);
    let second = pool.worker(1);
    pool.pass(SECOND, &[first]);
    assert_eq!(pool.refusal(second), None, "not before it is certain");
    pool.pass(2 * SECOND, &[first]);
    let refusal = pool.refusal(second).expect("two with one key");
    assert!(
        refusal.contains("this key is in use by another"),
        "{refusal}"
    );
    assert!(!pool.is_welcome(second));
    assert_eq!(pool.closed, [second], "the first goes on");
    assert_eq!(pool.status().members.len(), 1);
}

#[test]
fn a_worker_that_comes_back_takes_the_place_of_its_silent_session() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    pool.pass(SECOND, &[first]);
    let second = pool.worker(1);
    // What was under way over the old connection is no sign of life.
    pool.pass(300 * MS, &[first]);
    pool.pass(2 * SECOND, &[]);
    assert!(pool.is_welcome(second) && pool.refusal(second).is_none());
    assert_eq!(pool.closed, [first]);
    pool.pass(10 * SECOND, &[second]);
    assert_eq!(pool.status().members.len(), 1);
}

#[test]
fn the_end_of_the_old_session_lets_the_new_one_in_at_once() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    let second = pool.worker(1);
    assert!(!pool.is_welcome(second));
    pool.close(first);
    assert!(pool.is_welcome(second));
    // A worker that was let go has no session, either.
    pool.say(second, ToCoordinator::Drain);
    let third = pool.worker(1);
    assert!(pool.is_welcome(third));
}

#[test]
fn a_newcomer_that_leaves_is_forgotten() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    let second = pool.worker(1);
    pool.close(second);
    pool.pass(5 * SECOND, &[first]);
    pool.close(first);
    assert!(!pool.is_welcome(second) && pool.refusal(second).is_none());
    assert!(pool.status().members.is_empty());
}

#[test]
fn one_newcomer_waits_for_each_key() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    let mut last = first;
    for _ in 0..9 {
        pool.pass(200 * MS, &[first]);
        last = pool.worker(1);
    }
    let is_refusal = |(_, message): &(_, ToWorker)| matches!(message, ToWorker::Refused { .. });
    assert!(
        pool.sent.iter().any(is_refusal),
        "newcomers do not put it off"
    );
    pool.pass(2 * SECOND, &[first]);
    assert!(pool.refusal(last).is_some());
    assert!(!pool.closed.contains(&first));
    assert_eq!(pool.status().members.len(), 1);
}

/// After a hold-up old heartbeats come in a bunch: they are no proof that the old session is alive.
#[test]
fn a_coordinator_that_was_held_up_listens_anew() {
    let mut pool = Bare::new();
    let first = pool.worker(1);
    pool.pass(SECOND, &[first]);
    let second = pool.worker(1);
    pool.hang(1_700 * MS);
    pool.pass(100 * MS, &[first]);
    assert_eq!(pool.refusal(second), None);
    pool.pass(2 * SECOND, &[]);
    assert!(pool.is_welcome(second) && pool.refusal(second).is_none());
}

#[test]
fn a_key_that_is_convicted_meanwhile_stays_out() {
    let mut pool = Bare::new();
    let job = pool.submit(job(3, (1, 1), false));
    let first = pool.worker(1);
    pool.say(first, ToCoordinator::Ready { job, epoch: 1 });
    let second = pool.worker(1);
    // It signs a claim that has no leaves.
    let mut plans = pool.sent.iter().filter_map(|(_, message)| match message {
        ToWorker::Assign(assignment) => Some(assignment.plan.clone()),
        _ => None,
    });
    let plan = plans.next_back().expect("a plan");
    let mut started = pool.sent.iter().filter_map(|(_, message)| match message {
        ToWorker::Step { started, .. } => Some(entry_digest(started)),
        _ => None,
    });
    let half = FirstHalf {
        job,
        attempt: AttemptId {
            number: 0,
            entry: started.next_back().expect("a step"),
        },
        previous: None,
        step: 0,
        epoch: plan.epoch,
        plan: plan.digest(),
        arithmetic: ARITHMETIC_VERSION,
        leaf_root: leaf_root(&[]),
    };
    let first_half = Signed::new(&key(1), &half);
    let computed = ToCoordinator::Computed {
        job,
        epoch: 1,
        step: 0,
        first_half,
        leaves: Vec::new(),
        losses: Vec::new(),
        norms: Vec::new(),
    };
    pool.say(first, computed);
    pool.pass(SECOND, &[]);
    let refusal = pool.refusal(second).expect("convicted");
    assert!(refusal.contains("convicted"), "{refusal}");
    assert!(!pool.is_welcome(second));
}

/// Bytes that are no message cost a session. Where they come again and again, the worker gets no
/// work for a while, and a new session does not change that.
#[test]
fn garbage_again_and_again_pauses_its_worker() {
    let mut pool = Bare::new();
    let broken = |session| CoreEvent::Broken {
        session,
        reason: "bytes".to_string(),
    };
    for _ in 0..5 {
        let session = pool.worker(1);
        assert!(pool.is_welcome(session));
        pool.apply(broken(session));
        assert!(pool.closed.contains(&session));
    }
    let last = pool.worker(1);
    assert_eq!(pool.refusal(last), None, "nobody is convicted");
    let job = pool.submit(job(3, (1, 1), false));
    let assigned = |pool: &Bare| {
        let mut sent = pool.sent.iter();
        sent.any(|(_, message)| matches!(message, ToWorker::Assign(_)))
    };
    pool.pass(10 * SECOND, &[last]);
    assert!(
        !assigned(&pool),
        "16 s after the fifth time: {:?}",
        pool.waits(job)
    );
    pool.pass(10 * SECOND, &[last]);
    assert!(assigned(&pool), "{:?}", pool.waits(job));
}
