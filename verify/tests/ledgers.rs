//! Ledgers altered by somebody who has all the keys: each lie is found, and its place named.

mod fixture;

use concord_proto::ledger::{Finding, LedgerEvent, Offence};
use concord_proto::*;
use concord_verify::training::bundle::{verify, verify_by};
use fixture::*;

#[test]
fn the_chain_cannot_be_cut() {
    let story = Story::honest();
    let mut records_cut = story.bundle();
    records_cut.records.pop();
    assert_refused(&records_cut, "chain.records", &["number of records"]);

    let mut ledger_cut = story.bundle();
    ledger_cut.ledger.pop();
    assert_refused(&ledger_cut, "ledger.entries", &["not completed"]);

    let mut beheaded = story.bundle();
    beheaded.ledger.remove(0);
    assert_refused(&beheaded, "ledger.entries", &["entry 0", "numbered 1"]);

    let mut hole = story.bundle();
    hole.ledger.remove(4);
    assert_refused(&hole, "ledger.entries", &["entry 4", "numbered 5"]);

    let mut empty = story.bundle();
    empty.ledger.clear();
    assert_refused(&empty, "ledger.entries", &["no entry"]);

    // One step fewer, with a ledger that says that this was all.
    let mut shorter = Story::honest();
    let last = shorter.find_last(|event| matches!(event, LedgerEvent::Started { .. }));
    shorter.events.truncate(last);
    let record = shorter.records[0].digest();
    shorter.events.push(LedgerEvent::Completed { record });
    shorter.records.pop();
    shorter.claims.pop();
    assert_refused(
        &shorter.bundle(),
        "ledger.entries",
        &["not all steps are committed"],
    );
}

/// Demands that the ledger is refused once `alter` has changed its events.
fn refused_ledger(alter: impl Fn(&mut Story), words: &[&str]) {
    let mut story = Story::honest();
    alter(&mut story);
    assert_refused(&story.bundle(), "ledger.entries", words);
}

/// The digest of a leaf of step 1.
fn leaf_of(story: &Story, worker: usize, leaf: usize) -> Digest {
    story.claims[1].claims[worker].leaves[leaf].digest()
}

/// What nobody has answered for counts as unsettled; the words of others do not help.
#[test]
fn every_drawn_leaf_needs_a_verdict_of_who_drew_it() {
    let shown = |alter: &dyn Fn(&mut Story)| {
        let mut story = Story::honest();
        alter(&mut story);
        verify(&story.bundle()).map(|report| report.auditors)
    };
    let sound = shown(&|_| {}).unwrap();
    let less = shown(&|story| {
        let at = story.find_last(is_judged);
        story.events.remove(at);
    });
    assert_eq!(less.unwrap()[0].agreed, sound[0].agreed - 1);
    // The verdict of somebody else in the place of the checker's.
    let by = |checker: u8| {
        move |story: &mut Story| {
            let at = story.find_last(is_judged);
            let LedgerEvent::Judged { verdict } = &mut story.events[at] else {
                unreachable!();
            };
            let found: concord_proto::ledger::Verdict = verdict.open().unwrap();
            *verdict = Signed::new(&key(checker), &found);
        }
    };
    refused_ledger(by(1), &["not enrolled as a checker"]);
    assert_eq!(shown(&by(LAZY)).unwrap()[0].agreed, sound[0].agreed - 1);
    let forged = |story: &mut Story| {
        let at = story.find_last(is_judged);
        let LedgerEvent::Judged { verdict } = &mut story.events[at] else {
            unreachable!();
        };
        verdict.signature[9] ^= 1;
    };
    refused_ledger(forged, &["signature"]);
    // What a convicted checker found right shows nothing, whenever it said so.
    let convicted_later = |story: &mut Story| {
        let (at, claims, of) = (story.events.len() - 1, &story.claims[1], (0, 0));
        let agrees = verdict_on(CHECKER, claims, of, Finding::Agrees);
        let computed = others(&claims.claims[0].leaves[0]);
        let conviction = false_verdict(claims, of, agrees, computed);
        let convicted = convicted(id(CHECKER), Offence::FalseVerdict, conviction);
        story.events.insert(at, convicted);
    };
    assert_eq!(shown(&convicted_later).unwrap(), []);
}

#[test]
fn a_dispute_must_be_resolved() {
    let differs = Finding::Differs {
        computed: Vec::new(),
    };
    let open = |story: &mut Story| {
        let leaf = leaf_of(story, 0, 1);
        let verdict = verdict(CHECKER, (1, 3, 1), id(1), leaf, differs.clone());
        let at = story.events.len() - 1;
        story.events.insert(at, LedgerEvent::Judged { verdict });
    };
    refused_ledger(open, &["another result", "not voided"]);
    // The same leaf, as a checker that the reader names found it wrong under the plan before.
    let earlier = |story: &mut Story| {
        let leaf = story.claims[0].claims[0].leaves[1].digest();
        let verdict = verdict(CHECKER, (0, 0, 1), id(1), leaf, differs.clone());
        let at = story.events.len() - 1;
        story.events.insert(at, LedgerEvent::Judged { verdict });
    };
    let mut story = Story::honest();
    earlier(&mut story);
    let named = [id(CHECKER)].into_iter().collect();
    let error = verify_by(&story.bundle(), &named).unwrap_err().to_string();
    assert!(error.contains("not voided"), "{error}");
    // Of others, what was void may have been that: the step was done again.
    verify(&story.bundle()).unwrap();
}

/// Else an auditor could be asked to compute a leaf with what the spec gives for another step.
#[test]
fn a_verdict_names_the_step_of_its_attempt() {
    let other_step = |story: &mut Story| {
        let leaf = leaf_of(story, 0, 1);
        let signed = verdict(CHECKER, (1, 3, 1), id(1), leaf, Finding::Agrees);
        let mut other: concord_proto::ledger::Verdict = signed.open().unwrap();
        other.step = 0;
        let verdict = Signed::new(&key(CHECKER), &other);
        let at = story.events.len() - 1;
        story.events.insert(at, LedgerEvent::Judged { verdict });
    };
    refused_ledger(other_step, &["another step than its attempt"]);
}

#[test]
fn the_convicted_have_no_part_in_what_follows() {
    let convict = |at: fn(&Story) -> usize| {
        move |story: &mut Story| {
            let conviction = equivocation(&story.claims[1], 2);
            let convicted = convicted(id(3), Offence::Equivocation, conviction);
            let at = at(story);
            story.events.insert(at, convicted);
        }
    };
    let before_plan = |story: &Story| story.find_last(|e| matches!(e, LedgerEvent::Planned { .. }));
    refused_ledger(convict(before_plan), &["was convicted before"]);
    refused_ledger(
        convict(|s| s.find_last(is_committed)),
        &["committed", "was convicted before"],
    );
    // Found wrong in step 0 as it stands, and step 1 rests on it.
    let rests = |story: &mut Story| {
        let conviction = wrong_result(&story.claims[0], 2, 0);
        let wrong = convicted(id(3), Offence::WrongResult, conviction);
        let at = story.events.len() - 1;
        story.events.insert(at, wrong);
    };
    refused_ledger(rests, &["rests on a worker found wrong"]);
    // The liar is audited, and what it did is not voided.
    let not_voided = |story: &mut Story| {
        let at = story.find(|e| matches!(e, LedgerEvent::Voided { .. }));
        story.events.remove(at);
    };
    refused_ledger(not_voided, &["another step comes next"]);
}

#[test]
fn a_step_is_started_before_it_is_committed() {
    let unstarted = |story: &mut Story| {
        let at = story.find_last(is_started);
        story.events.remove(at);
    };
    refused_ledger(unstarted, &["no step was started"]);
    let late = |story: &mut Story| {
        let (started, committed) = (story.find_last(is_started), story.find_last(is_committed));
        story.events.swap(started, committed);
    };
    refused_ledger(late, &["step 1 committed"]);
}

#[test]
fn the_ledger_is_one_coordinator_s_and_of_one_job() {
    let mut two_hands = Story::honest().bundle();
    let entry: ledger::LedgerEntry = two_hands.ledger[3].open().unwrap();
    two_hands.ledger[3] = Signed::new(&key(98), &entry);
    assert_refused(
        &two_hands,
        "ledger.entries",
        &["entry 3", "signed the entries before"],
    );
    refused_ledger(
        |story| story.events.swap(0, 1),
        &["entry 0", "does not open"],
    );
    refused_ledger(
        |story| {
            story
                .events
                .insert(1, LedgerEvent::Opened { job: spec().id() })
        },
        &["entry 1", "open already"],
    );
    refused_ledger(
        |story| story.events.push(LedgerEvent::Voided { from_step: 0 }),
        &["after the job was completed"],
    );
    let stranger = |story: &mut Story| {
        story
            .events
            .retain(|e| !matches!(e, LedgerEvent::Enrolled { worker, .. } if *worker == id(2)));
        story.reveal_again();
    };
    refused_ledger(stranger, &["not enrolled as a worker"]);
    let mut other_job = Story::honest().bundle();
    other_job.spec.steps = 3;
    assert_refused(&other_job, "job.spec", &["the ledger is of"]);
}
