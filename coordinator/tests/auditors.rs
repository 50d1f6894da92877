//! Auditors draw by secrets that they have committed to: what they settle, and what is left where
//! they, workers or the coordinator fail.

use concord_simulator as sim;

use concord_proto::client::JobEvent;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, Offence, entry_digest};
use concord_proto::{Digest, Signed, WorkerId};
use concord_verify::training::bundle::{self, AuditorReport};
use sim::auditor::Manner;
use sim::job::{ALWAYS, job};
use sim::lies::{Kind, Lie};
use sim::world::{Checker, SECOND, World, key};

const STEPS: u32 = 12;
const LIMIT: u64 = 900 * SECOND;
const QUARTER: u64 = ALWAYS / 4;

fn alone() -> Digest {
    let mut world = World::new(1, job(STEPS, (1, 1), false));
    world.join_worker(1, 0, None);
    world.run(LIMIT).expect("one honest worker is enough")
}

/// A pool without checkers, in which nothing is drawn but by auditors.
fn pool(seed: u64, plan: (u32, u32), lie: Option<Lie>) -> World {
    let mut world = World::new(seed, job(STEPS, plan, false));
    world.config.referee = true;
    for number in 1..=(plan.0 * plan.1) as u8 {
        world.join_worker(number, 0, lie.filter(|_| number == 1));
    }
    for spare in [101, 102] {
        world.join_fast_worker(spare, 0, None, 1_000);
    }
    world
}

fn told(world: &World) -> String {
    let events = world.memory.events.iter().map(|event| format!("{event:?}"));
    events.collect::<Vec<_>>().join("\n")
}

/// Runs to the end; gives the record and what auditors show.
fn finish(world: &mut World, what: &str) -> (Digest, Vec<AuditorReport>) {
    let Some(record) = world.run(LIMIT) else {
        panic!("{what}: not done; events:\n{}", told(world));
    };
    match bundle::verify(&world.memory.bundle(&world.new)) {
        Ok(report) => (record, report.auditors),
        Err(error) => panic!("{what}: {error}; events:\n{}", told(world)),
    }
}

#[test]
fn an_honest_auditor_settles_every_attempt() {
    let expected = alone();
    for (seed, plan) in [(1, (1, 1)), (2, (2, 1)), (3, (1, 2)), (4, (2, 2))] {
        let mut world = pool(seed, plan, None);
        let auditor = world.join_auditor(201, 0, Manner::Honest, QUARTER);
        world.replay_submission();
        let (record, auditors) = finish(&mut world, &format!("{plan:?}"));
        assert_eq!(record, expected);
        let [own] = &auditors[..] else {
            panic!("{auditors:?}");
        };
        assert_eq!((own.auditor, own.rate), (auditor, QUARTER));
        assert_eq!((own.steps, own.unsettled), (STEPS, 0), "{plan:?}");
        assert!(own.drawn > 0 && own.agreed == own.drawn, "{own:?}");
        let missed = 0.75_f64.powi(STEPS as i32);
        assert!((own.detection(STEPS) - (1.0 - missed)).abs() < 1e-9);
        assert_eq!(own.nearly_certain(), None, "0.75^12 is over 1 %");
        assert!(world.memory.convicted.is_empty());
    }
}

/// Nobody else audits, and the coordinator's own draw is empty: the auditor's word brings the
/// referee in.
#[test]
fn an_auditor_finds_a_lie_by_itself() {
    let expected = alone();
    for kind in [Kind::WrongForward, Kind::WrongBackward, Kind::SkipUpdate] {
        let lie = Lie { kind, from_step: 3 };
        let mut world = pool(7, (2, 1), Some(lie));
        world.join_auditor(201, 0, Manner::Honest, ALWAYS);
        world.replay_submission();
        let (record, auditors) = finish(&mut world, &format!("{kind:?}"));
        assert_eq!(record, expected, "{kind:?}:\n{}", told(&world));
        let convicted: Vec<(WorkerId, Offence)> = world
            .memory
            .convicted
            .iter()
            .map(|(&id, &offence)| (id, offence))
            .collect();
        let culprit = (key(1).public(), Offence::WrongResult);
        assert_eq!(convicted, [culprit], "{kind:?}:\n{}", told(&world));
        // What it had opened of void attempts counts against it, but for those that it has audited
        // whole and found right.
        assert_eq!(auditors[0].agreed, auditors[0].drawn);
        assert!(auditors[0].unsettled > 0, "{auditors:?}");
    }
}

/// An auditor that opens nothing, or other secrets than its own, or answers nothing about what they
/// draw, costs a pause and no more.
#[test]
fn an_auditor_that_fails_holds_nothing_up_and_shows_nothing() {
    let expected = alone();
    for manner in [Manner::Silent, Manner::OtherSecrets, Manner::Mute] {
        let mut world = pool(9, (2, 1), None);
        world.join_auditor(201, 0, manner, ALWAYS);
        world.replay_submission();
        let (record, auditors) = finish(&mut world, &format!("{manner:?}"));
        assert_eq!(record, expected);
        let own = &auditors[0];
        assert_eq!((own.agreed, own.unsettled), (0, STEPS), "{manner:?}");
        assert!(own.detection(STEPS).abs() < 1e-12);
        assert!(world.memory.convicted.is_empty());
    }
}

/// A job waits for the auditors that it names, and says so.
#[test]
fn a_job_waits_for_its_auditors() {
    let expected = alone();
    let mut world = pool(11, (1, 1), None);
    world.join_auditor(201, 20 * SECOND, Manner::Honest, QUARTER);
    world.replay_submission();
    let (record, auditors) = finish(&mut world, "a late auditor");
    assert_eq!(record, expected);
    assert_eq!(auditors[0].unsettled, 0);
    let short = key(201).public().short();
    let waits = world.memory.events.iter().any(|event| match event {
        JobEvent::Waiting(what) => what.contains(&format!("auditor {short} to connect")),
        _ => false,
    });
    assert!(waits, "{}", told(&world));
}

/// A key that no job names commits to nothing, and is asked for nothing.
#[test]
fn an_auditor_that_nobody_names_has_no_part() {
    let mut world = pool(13, (1, 1), None);
    world.join_auditor(201, 0, Manner::Honest, ALWAYS);
    world.new.submission.options.auditors.clear();
    world.replay_submission();
    let (_, auditors) = finish(&mut world, "not named");
    assert!(auditors.is_empty());
}

/// Broken connections, a worker that is lost, a coordinator that dies again and again: the record
/// is the same, and what is not settled is counted.
#[test]
fn faults_never_make_an_auditor_show_more_than_it_has_seen() {
    let expected = alone();
    let mut whole = 0;
    for seed in 0..40 {
        let plan = [(1, 1), (2, 1), (1, 2), (2, 2)][seed as usize % 4];
        let mut world = pool(seed, plan, None);
        let auditor = world.join_auditor(201, 0, Manner::Honest, ALWAYS / 3);
        world.replay_submission();
        world.break_connection(auditor, 300_000 + seed * 70_000);
        match seed % 3 {
            0 => world.crash(400_000 + seed * 50_000),
            1 => world.break_connection(key(1).public(), 350_000 + seed * 60_000),
            _ => {
                world.break_connection(auditor, 900_000);
                world.crash(1_200_000);
            }
        }
        let (record, auditors) = finish(&mut world, &format!("seed {seed}"));
        assert_eq!(record, expected, "seed {seed}");
        assert!(world.memory.convicted.is_empty(), "seed {seed}");
        let own = &auditors[0];
        assert!(own.drawn >= own.agreed, "seed {seed}: {own:?}");
        assert!(own.unsettled <= STEPS + own.steps, "seed {seed}: {own:?}");
        if own.drawn > own.agreed {
            assert!(own.unsettled > 0, "seed {seed}: {own:?}");
        }
        whole += u32::from(own.unsettled == 0);
    }
    assert!(whole >= 10, "only {whole} of 40 were settled as a whole");
}

/// The bundle of a job whose ledger was written anew by its coordinator, which alters it by `edit`
/// and signs it again.
fn rewritten(world: &World, edit: impl FnOnce(&mut Vec<LedgerEvent>)) -> bundle::Bundle {
    let mut bundle = world.memory.bundle(&world.new);
    let opened = |signed: &Signed| signed.open::<LedgerEntry>().expect("an entry").event;
    let mut events: Vec<LedgerEvent> = bundle.ledger.iter().map(opened).collect();
    edit(&mut events);
    let mut previous = bundle.spec.id().0;
    bundle.ledger.clear();
    for (number, event) in (0..).zip(events) {
        let entry = LedgerEntry {
            number,
            previous,
            event,
        };
        let signed = Signed::new(&key(255), &entry);
        previous = entry_digest(&signed);
        bundle.ledger.push(signed);
    }
    bundle
}

/// A coordinator that leaves a secret or a verdict out, or takes one of another history, is refuted
/// by the claims that come after, or the attempt counts as unsettled.
#[test]
fn what_is_left_out_of_a_ledger_is_refuted_or_counts_as_unsettled() {
    let mut world = pool(17, (2, 1), None);
    world.join_auditor(201, 0, Manner::Honest, QUARTER);
    world.replay_submission();
    finish(&mut world, "honest");
    let is_revealed = |event: &LedgerEvent| matches!(event, LedgerEvent::Revealed { .. });
    let is_judged = |event: &LedgerEvent| matches!(event, LedgerEvent::Judged { .. });
    let unsettled =
        |bundle: &bundle::Bundle| bundle::verify(bundle).map(|r| r.auditors[0].unsettled);
    assert_eq!(unsettled(&rewritten(&world, |_| {})).unwrap(), 0);
    let without = |test: fn(&LedgerEvent) -> bool, last: bool| {
        rewritten(&world, |events| {
            let at = match last {
                true => events.iter().rposition(test),
                false => events.iter().position(test),
            };
            events.remove(at.expect("one"));
        })
    };
    // Entries that come after name others than the ledger has then, claims among them.
    assert!(unsettled(&without(is_revealed, false)).is_err());
    assert!(unsettled(&without(is_judged, false)).is_err());
    // After the last claims nobody signs what came before: it shows less.
    assert_eq!(unsettled(&without(is_revealed, true)).unwrap(), 1);
    // So it is without the verdicts that came after the last secret.
    let bare = rewritten(&world, |events| {
        let last = events.iter().rposition(is_revealed).expect("a secret");
        let after = events.split_off(last);
        events.extend(after.into_iter().filter(|event| !is_judged(event)));
    });
    let own = bundle::verify(&bare).unwrap().auditors.remove(0);
    assert_eq!(own.drawn > own.agreed, own.unsettled > 0, "{own:?}");
    // A secret that was opened for another attempt's claims is none of this one.
    let swapped = rewritten(&world, |events| {
        let revealed: Vec<usize> = (0..events.len())
            .filter(|&at| is_revealed(&events[at]))
            .collect();
        let [.., before, last] = revealed[..] else {
            panic!("two secrets");
        };
        events.swap(before, last);
    });
    let shown = bundle::verify(&swapped).map(|report| report.auditors[0].unsettled);
    assert!(shown.as_ref().is_ok_and(|unsettled| *unsettled > 0) || shown.is_err());
}

/// Others wait behind a job: it does not wait for an auditor that never comes.
#[test]
fn a_job_fails_whose_auditor_never_comes() {
    let mut world = pool(19, (1, 1), None);
    let named = world.join_auditor(201, LIMIT, Manner::Honest, QUARTER);
    world.replay_submission();
    assert_eq!(world.run(LIMIT - SECOND), None);
    let Some(JobEvent::Failed(why)) = world.memory.events.last() else {
        panic!("{}", told(&world));
    };
    assert!(
        why.contains(&named.short()) && why.contains("two minutes"),
        "{why}"
    );
}

/// An auditor whose process is lost commits to new secrets, and goes on; what it has opened before
/// stays settled.
#[test]
fn an_auditor_that_is_started_again_goes_on_with_new_secrets() {
    let expected = alone();
    let mut again = 0;
    for seed in 0..12 {
        let mut world = pool(seed, (2, 1), None);
        let auditor = world.join_auditor(201, 0, Manner::Honest, ALWAYS);
        world.replay_submission();
        world.restart_auditor(auditor, 500_000 + seed * 90_000);
        let (record, auditors) = finish(&mut world, &format!("seed {seed}"));
        assert_eq!(record, expected, "seed {seed}");
        let own = &auditors[0];
        assert!(own.agreed > 0, "seed {seed}: {own:?}");
        let enrolled = |signed: &&Signed| {
            let entry: LedgerEntry = signed.open().expect("an entry");
            matches!(entry.event, LedgerEvent::Auditing { .. })
        };
        again += u32::from(world.memory.ledger.iter().filter(enrolled).count() > 1);
    }
    assert!(again > 4, "only {again} of 12 have committed anew");
}

/// A job that audits all, by so many checkers of the pool.
fn pool_with_checkers(seed: u64, checkers: u32) -> World {
    let mut world = pool(seed, (2, 1), None);
    let options = &mut world.new.submission.options;
    (options.checkers, options.audit_rate) = (checkers, ALWAYS);
    world
}

/// Keys cost nothing: those of the pool that never commit to secrets are tried one after another,
/// and keep nobody out.
#[test]
fn keys_that_commit_to_nothing_do_not_stop_a_job() {
    let expected = alone();
    let mut world = pool_with_checkers(5, 8);
    for number in 110..190 {
        world.join_failing_checker(number, 0, Manner::Absent);
    }
    for number in 201..209 {
        world.join_checker(number, 300 * SECOND, Checker::Honest);
    }
    world.replay_submission();
    let (record, auditors) = finish(&mut world, "absent checkers");
    assert_eq!(record, expected);
    assert_eq!(auditors.len(), 8, "{auditors:?}");
    assert!(
        auditors.iter().all(|own| own.unsettled == 0),
        "{auditors:?}"
    );
}

/// A checker that opens nothing, or answers nothing about what it draws, is replaced.
#[test]
fn a_checker_that_says_nothing_is_replaced() {
    let expected = alone();
    for manner in [Manner::Silent, Manner::Mute] {
        let mut world = pool_with_checkers(6, 1);
        let silent = world.join_failing_checker(201, 0, manner);
        let honest = world.join_checker(202, 2 * SECOND, Checker::Honest);
        world.replay_submission();
        let (record, auditors) = finish(&mut world, &format!("{manner:?}"));
        assert_eq!(record, expected);
        let of = |id: WorkerId| auditors.iter().find(|own| own.auditor == id);
        let (silent, honest) = (of(silent).unwrap(), of(honest).unwrap());
        assert_eq!(silent.agreed, 0, "{manner:?}: {auditors:?}");
        assert!(honest.agreed > 0, "{manner:?}: {auditors:?}");
    }
}
