//! What parties have kept of a ledger, held to proofs with other histories.

mod fixture;

use concord_proto::Signed;
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent};
use concord_verify::training::bundle::Bundle;
use concord_verify::training::heads::{HeadMatch, KeptHead, compare};
use fixture::*;

fn kept(bundle: &Bundle, number: usize) -> KeptHead {
    KeptHead {
        job: spec().id(),
        head: bundle.ledger[number].clone(),
        findings: Vec::new(),
    }
}

fn refused(bundle: &Bundle, kept: &KeptHead, words: &str) {
    let why = compare(bundle, kept).expect_err("it is refused");
    assert!(why.contains(words), "{why}");
}

#[test]
fn every_entry_of_the_ledger_is_a_head_of_it() {
    let bundle = Story::honest().bundle();
    for number in 0..bundle.ledger.len() {
        let same = HeadMatch::Same {
            number: number as u64,
        };
        assert_eq!(compare(&bundle, &kept(&bundle, number)), Ok(same));
    }
}

#[test]
fn a_ledger_that_was_written_anew_or_cut_is_refused_by_any_later_head() {
    let (one, other) = (Story::honest().bundle(), Story::honest_again().bundle());
    let entries = one.ledger.iter().zip(&other.ledger);
    let fork = entries.take_while(|(one, other)| one == other).count();
    assert!(2 < fork && fork < one.ledger.len().min(other.ledger.len()));
    for number in 0..one.ledger.len() {
        let kept = kept(&one, number);
        match number < fork {
            true => assert!(compare(&other, &kept).is_ok(), "{number}"),
            false if number < other.ledger.len() => refused(&other, &kept, "signed two entries"),
            false => refused(&other, &kept, "has only"),
        }
    }
    let mut cut = one.clone();
    let last = kept(&one, one.ledger.len() - 1);
    cut.ledger.pop();
    refused(&cut, &last, "has only");
}

#[test]
fn heads_of_other_jobs_and_coordinators_say_nothing() {
    let bundle = Story::honest().bundle();
    let mut other_job = kept(&bundle, 3);
    other_job.job.0.0[0] ^= 1;
    assert_eq!(compare(&bundle, &other_job), Ok(HeadMatch::OtherJob));
    let mut elsewhere = kept(&bundle, 3);
    let entry: LedgerEntry = elsewhere.head.open().unwrap();
    elsewhere.head = Signed::new(&key(COORDINATOR - 1), &entry);
    let other = Ok(HeadMatch::OtherCoordinator);
    assert_eq!(compare(&bundle, &elsewhere), other);
    // What is no entry, under the coordinator's key.
    let mut nonsense = kept(&bundle, 3);
    nonsense.head = Signed::new(&key(COORDINATOR), &7_u8);
    assert_eq!(compare(&bundle, &nonsense), Ok(HeadMatch::NoHead));
    // A signature that does not hold.
    let mut forged = kept(&bundle, 3);
    forged.head.body[0] ^= 1;
    assert_eq!(compare(&bundle, &forged), Ok(HeadMatch::NoHead));
}

/// A finding against a leaf of the chain that the ledger passes over in silence.
#[test]
fn a_finding_that_is_left_out_is_missed() {
    let mut story = Story::honest();
    let claims = story.claims[1].clone();
    let (worker, leaf) = (claims.claims[2].claim.signer, &claims.claims[2].leaves[1]);
    let differs = Finding::Differs {
        computed: others(leaf),
    };
    // The plan of the chain has epoch 3.
    let finding = verdict(CHECKER, (1, 3, 1), worker, leaf.digest(), differs);
    let mut kept = kept(&story.bundle(), 3);
    kept.findings = vec![finding.clone()];
    refused(&story.bundle(), &kept, "lacks what");
    // Of a void attempt, and one that agrees: neither is against the chain.
    let void = &story.voided[0].claims[1];
    let differs = Finding::Differs {
        computed: others(&void.leaves[0]),
    };
    let (worker_of_void, void) = (void.claim.signer, void.leaves[0].digest());
    let of_void = verdict(CHECKER, (0, 0, 0), worker_of_void, void, differs);
    let agrees = verdict(CHECKER, (1, 3, 1), worker, leaf.digest(), Finding::Agrees);
    // One by a key that the ledger does not know as a checker.
    let differs = Finding::Differs {
        computed: others(leaf),
    };
    let stranger = verdict(1, (1, 3, 1), worker, leaf.digest(), differs);
    kept.findings = vec![of_void, agrees, stranger];
    assert!(compare(&story.bundle(), &kept).is_ok());
    // The ledger has it.
    kept.findings = vec![finding.clone()];
    let at = story.events.len() - 1;
    story
        .events
        .insert(at, LedgerEvent::Judged { verdict: finding });
    assert!(compare(&story.bundle(), &kept).is_ok());
}
