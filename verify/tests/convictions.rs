//! Convictions: each kind shows its offence, none can be altered, and no line takes back what a
//! checker found.

mod fixture;

use concord_proto::ledger::{Finding, LedgerEvent, Offence};
use concord_proto::*;
use concord_verify::training::bundle::{Bundle, Report, VerifyError, verify, verify_by};
use fixture::*;

/// Alters the parts of a wrong result.
type AlterResult<'a> = dyn Fn(&mut ClaimedLeaf, &mut Vec<Vec<Digest>>, &mut Vec<Port>) + 'a;

/// Alters the parts of a false verdict.
type AlterVerdict<'a> = dyn Fn(&mut ClaimedLeaf, &mut Vec<Port>) + 'a;

/// Somebody who has signed nothing.
const STRANGER: u8 = 77;

/// The honest story, with entries before its last one.
fn story_with(entries: impl IntoIterator<Item = LedgerEvent>) -> Bundle {
    let mut story = Story::honest();
    let last = story.events.pop().expect("an entry");
    story.events.extend(entries);
    story.events.push(last);
    story.bundle()
}

fn refused(bundle: &Bundle) -> VerifyError {
    verify(bundle).expect_err("the bundle does not hold")
}

/// Demands that a conviction is refused, and its entry named.
fn assert_not_shown(culprit: WorkerId, offence: Offence, conviction: Conviction, why: &str) {
    let bundle = story_with([convicted(culprit, offence, conviction)]);
    let error = refused(&bundle).to_string();
    let entry = format!("entry {} (", bundle.ledger.len() - 2);
    let words = ["ledger.entries", &entry, "convicted", "does not show", why];
    for word in words {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
}

fn differs(computed: Vec<Port>) -> Finding {
    Finding::Differs { computed }
}

fn judged(verdict: Signed) -> LedgerEvent {
    LedgerEvent::Judged { verdict }
}

#[test]
fn a_dissent_is_not_taken_back_by_a_line_that_shows_nothing() {
    let claims = &Story::honest().claims[1];
    let leaf = &claims.claims[0].leaves[1];
    let enrolled = LedgerEvent::Enrolled {
        worker: id(STRANGER),
        device: "another checker".to_string(),
        checker: true,
    };
    let of = (0, 1);
    let dissent = verdict_on(STRANGER, claims, of, differs(others(leaf)));
    let with = |conviction: Conviction| {
        let line = convicted(id(STRANGER), Offence::FalseVerdict, conviction);
        story_with([enrolled.clone(), judged(dissent.clone()), line])
    };
    // A conviction of something else: the checker is out, and its dissent stays.
    let other = verdict_on(STRANGER, claims, (0, 0), Finding::Agrees);
    let computed = others(&claims.claims[0].leaves[0]);
    let elsewhere = with(false_verdict(claims, (0, 0), other, computed));
    let error = refused(&elsewhere).to_string();
    assert!(error.contains("another result"), "{error}");
    // A conviction whose re-run says what the checker says.
    let conviction = false_verdict(claims, of, dissent.clone(), others(leaf));
    let error = refused(&with(conviction)).to_string();
    assert!(error.contains("what the verdict says"), "{error}");
    // Only one that decides about the very leaf: that its re-run gives these outputs is counted as
    // not checked.
    let decided = false_verdict(claims, of, dissent.clone(), leaf.outputs.clone());
    let report = verify(&with(decided)).unwrap();
    assert_eq!(report.convictions_on_rerun, 3);
    assert!(report.convicted.contains(&id(STRANGER)));
    // Who believes this very checker takes back nothing that it found.
    let decided = false_verdict(claims, of, dissent.clone(), leaf.outputs.clone());
    let error = verify_by(&with(decided), &[id(STRANGER)].into()).unwrap_err();
    assert!(error.to_string().contains("another result"), "{error}");
}

/// The same by a checker that was convicted before, of something else.
#[test]
fn what_a_convicted_checker_found_wrong_still_has_to_be_decided() {
    let claims = &Story::honest().claims[1];
    let computed = others(&claims.claims[0].leaves[1]);
    let dissent = verdict_on(LAZY, claims, (0, 1), differs(computed));
    let error = refused(&story_with([judged(dissent)])).to_string();
    assert!(error.contains("another result"), "{error}");
}

fn report_with(culprit: u8, offence: Offence, conviction: Conviction) -> Report {
    verify(&story_with([convicted(id(culprit), offence, conviction)])).unwrap()
}

#[test]
fn each_kind_of_conviction_holds_and_says_what_it_rests_on() {
    let claims = &Story::honest().claims[1];
    // The story has two that rest on a re-run.
    let report = report_with(1, Offence::Equivocation, equivocation(claims, 0));
    let counts = |report: &Report| (report.convictions_on_rerun, report.convictions_on_state);
    assert_eq!(counts(&report), (2, 0));
    for broken in [broken_rule(claims, 0), broken_second(claims, 0)] {
        let report = report_with(1, Offence::WrongClaim, broken);
        assert_eq!(counts(&report), (2, 1));
    }
    let early = Story::early_claims();
    // Every leaf of both halves.
    for index in 0..early.claims[1].leaves.len() {
        let wrong = wrong_result(&early, 1, index);
        let report = report_with(LIAR, Offence::WrongResult, wrong);
        assert_eq!(counts(&report), (3, 0));
    }
    // A checker that agrees, rightly, and shows no trace of its work.
    let leaf = early.claims[1].leaves[1].clone();
    let agrees = verdict(LAZY, (0, 0, 1), id(LIAR), leaf.digest(), Finding::Agrees);
    let mut conviction = false_verdict(&early, (1, 1), agrees, leaf.outputs);
    if let Conviction::FalseVerdict { trace, .. } = &mut conviction {
        *trace = made_up("another trace");
    }
    let report = report_with(LAZY, Offence::FalseVerdict, conviction);
    assert_eq!(counts(&report), (3, 0));
}

#[test]
fn a_wrong_result_cannot_be_altered() {
    let claims = Story::early_claims();
    let (culprit, offence) = (id(LIAR), Offence::WrongResult);
    let with = |alter: &AlterResult, why| {
        let mut conviction = wrong_result(&claims, 1, 0);
        let Conviction::WrongResult {
            claimed,
            inputs,
            computed,
        } = &mut conviction
        else {
            unreachable!();
        };
        alter(claimed, inputs, computed);
        assert_not_shown(culprit, offence, conviction, why);
    };
    with(&|claimed, _, _| claimed.half.signature[3] ^= 1, "signature");
    with(&|claimed, _, _| claimed.half.body[40] ^= 1, "signature");
    let by_other = |claimed: &mut ClaimedLeaf| {
        let half: FirstHalf = claimed.half.open().unwrap();
        claimed.half = Signed::new(&key(STRANGER), &half);
    };
    with(&|claimed, _, _| by_other(claimed), "has not signed it");
    with(
        &|claimed, _, _| claimed.leaf.microbatch += 1,
        "not in the claim",
    );
    with(&|claimed, _, _| claimed.path.index += 1, "not in the claim");
    with(&|claimed, _, _| claimed.path.count += 1, "not in the claim");
    with(
        &|claimed, _, _| claimed.path.siblings[0] = made_up("other"),
        "not in the claim",
    );
    with(&|_, inputs, _| inputs[0][0] = made_up("other"), "inputs");
    with(&|_, inputs, _| drop(inputs.pop()), "inputs");
    with(&|_, inputs, _| inputs.clear(), "inputs");
    with(&|_, _, computed| computed.clear(), "other outputs");
    with(
        &|_, _, computed| computed[0].kind = PortKind::Scalars,
        "other outputs",
    );
    with(
        &|claimed, _, computed| *computed = claimed.leaf.outputs.clone(),
        "what the worker claims",
    );
    let of_other_job = |claimed: &mut ClaimedLeaf| {
        resign(&mut claimed.half, |half: &mut FirstHalf| {
            half.job = JobId(made_up("another job"));
        });
    };
    with(&|claimed, _, _| of_other_job(claimed), "another job");
    // In the name of somebody else, or as another offence.
    let conviction = || wrong_result(&claims, 1, 0);
    assert_not_shown(id(STRANGER), offence, conviction(), "has not signed it");
    for offence in [
        Offence::WrongClaim,
        Offence::Replay,
        Offence::Forgery,
        Offence::Malformed,
        Offence::Equivocation,
        Offence::FalseVerdict,
    ] {
        assert_not_shown(culprit, offence, conviction(), "does not show a");
    }
}

#[test]
fn a_false_verdict_cannot_be_altered() {
    let claims = Story::early_claims();
    let (culprit, offence, of) = (id(LAZY), Offence::FalseVerdict, (1, 0));
    let leaf = &claims.claims[1].leaves[0];
    let said = |verdict: Signed, why| {
        let conviction = false_verdict(&claims, of, verdict, others(leaf));
        assert_not_shown(culprit, offence, conviction, why);
    };
    let digest = leaf.digest();
    let agrees = || verdict_on(LAZY, &claims, of, Finding::Agrees);
    let mut forged = agrees();
    forged.signature[9] ^= 1;
    said(forged, "signature");
    let by_other = verdict_on(STRANGER, &claims, of, Finding::Agrees);
    said(by_other, "has not signed it");
    let on = |place, worker, leaf| verdict(LAZY, place, worker, leaf, Finding::Agrees);
    said(on((1, 0, 0), id(LIAR), digest), "another step or worker");
    said(on((0, 1, 0), id(LIAR), digest), "another step or worker");
    said(on((0, 0, 0), id(1), digest), "another step or worker");
    said(on((0, 0, 0), id(LIAR), made_up("other")), "another leaf");
    let nothing = Finding::Inconclusive {
        reason: "its inputs are gone".to_string(),
    };
    said(verdict_on(LAZY, &claims, of, nothing), "says nothing");
    let right = verdict_on(LAZY, &claims, of, differs(others(leaf)));
    said(right, "what the verdict says");
    // The leaf of the worker, the inputs and the re-run, as in a wrong result.
    let with = |alter: &AlterVerdict, why| {
        let mut conviction = false_verdict(&claims, of, agrees(), others(leaf));
        let Conviction::FalseVerdict {
            claimed, computed, ..
        } = &mut conviction
        else {
            unreachable!();
        };
        alter(claimed, computed);
        assert_not_shown(culprit, offence, conviction, why);
    };
    with(
        &|claimed, _| claimed.leaf.microbatch += 1,
        "not in the claim",
    );
    with(&|claimed, _| claimed.half.signature[0] ^= 1, "signature");
    with(&|_, computed| computed.clear(), "other outputs");
    with(
        &|_, computed| *computed = leaf.outputs.clone(),
        "what the verdict says",
    );
}

#[test]
fn a_broken_rule_cannot_be_invented() {
    let claims = &Story::honest().claims[1];
    let (culprit, offence) = (id(1), Offence::WrongClaim);
    // An honest claim keeps the rules, in both halves.
    let [first, second] = claims.claims[0].halves();
    for second in [None, Some(second)] {
        let honest = Conviction::BrokenRule {
            first: first.clone(),
            second,
            before: state_after(1),
        };
        assert_not_shown(culprit, offence, honest, "breaks no such rule");
    }
    let with = |alter: &dyn Fn(&mut SignedHalf, &mut Vec<_>), why| {
        for mut conviction in [broken_rule(claims, 0), broken_second(claims, 0)] {
            let Conviction::BrokenRule { first, before, .. } = &mut conviction else {
                unreachable!();
            };
            alter(first, before);
            assert_not_shown(culprit, offence, conviction, why);
        }
    };
    let renamed =
        |half: &mut SignedHalf, alter: fn(&mut FirstHalf)| resign(&mut half.signed, alter);
    with(&|first, _| first.signed.signature[1] ^= 1, "signature");
    with(&|first, _| drop(first.leaves.pop()), "its leaves are not");
    with(
        &|first, _| first.leaves[0].microbatch += 1,
        "its leaves are not",
    );
    with(&|_, before| before.truncate(1), "one entry for each");
    with(
        &|first, _| renamed(first, |half| half.plan = made_up("other")),
        "of no plan",
    );
    with(
        &|first, _| renamed(first, |half| half.epoch = 9),
        "of no plan",
    );
    with(
        &|first, _| renamed(first, |half| half.step = 2),
        "another job",
    );
    let conviction = broken_rule(claims, 0);
    assert_not_shown(culprit, Offence::Forgery, conviction, "breaks no such rule");
}

#[test]
fn a_broken_second_half_cannot_be_invented() {
    let claims = &Story::honest().claims[1];
    let (culprit, offence) = (id(1), Offence::WrongClaim);
    let with = |alter: &dyn Fn(&mut SignedHalf), why| {
        let mut conviction = broken_second(claims, 0);
        let Conviction::BrokenRule { second, .. } = &mut conviction else {
            unreachable!();
        };
        alter(second.as_mut().expect("a second half"));
        assert_not_shown(culprit, offence, conviction, why);
    };
    let renamed = |half: &mut SignedHalf, alter: fn(&mut Claim)| resign(&mut half.signed, alter);
    with(&|second| second.signed.signature[1] ^= 1, "signature");
    with(&|second| second.leaves.clear(), "its leaves are not");
    with(
        &|second| {
            let claim: Claim = second.signed.open().unwrap();
            second.signed = Signed::new(&key(STRANGER), &claim);
        },
        "has not signed it",
    );
    // Of another step it says nothing about this one.
    with(
        &|second| renamed(second, |claim| claim.step = 0),
        "no such rule",
    );
    with(
        &|second| renamed(second, |claim| claim.epoch = 9),
        "no such rule",
    );
    // Which scalars a worker was sent, nothing shows.
    let [first, mut second] = claims.claims[0].halves();
    let inputs = second.leaves[0].inputs.iter_mut();
    for input in inputs.filter(|input| input.port.kind == PortKind::Scalars) {
        input.port.digest = made_up("other scalars");
    }
    resign(&mut second.signed, |claim: &mut Claim| {
        claim.leaf_root = leaf_root(&second.leaves);
    });
    let other_scalars = Conviction::BrokenRule {
        first,
        second: Some(second),
        before: state_after(1),
    };
    assert_not_shown(culprit, offence, other_scalars, "breaks no such rule");
}

#[test]
fn an_equivocation_cannot_be_altered() {
    let claims = &Story::honest().claims[1];
    let (culprit, offence) = (id(1), Offence::Equivocation);
    let with = |alter: &dyn Fn(&mut ClaimedLeaf, &mut Port, &mut [u8; 64]), why| {
        let mut conviction = equivocation(claims, 0);
        let Conviction::Equivocation {
            claimed,
            sent,
            signature,
        } = &mut conviction
        else {
            unreachable!();
        };
        alter(claimed, sent, signature);
        assert_not_shown(culprit, offence, conviction, why);
    };
    let unsigned = "has not signed the tensor";
    with(&|_, _, signature| signature[8] ^= 1, unsigned);
    with(&|_, sent, _| sent.digest = made_up("third"), unsigned);
    with(&|claimed, _, _| claimed.half.signature[8] ^= 1, "signature");
    with(
        &|claimed, _, _| claimed.leaf.microbatch += 1,
        "not in the claim",
    );
    // What it sent is what it claims.
    let same = |claimed: &mut ClaimedLeaf, sent: &mut Port, signature: &mut [u8; 64]| {
        *sent = claimed.leaf.outputs[0];
        let half: FirstHalf = claimed.half.open().unwrap();
        let microbatch = claimed.leaf.microbatch;
        let message = Origin::message(&half.job, &half.attempt, microbatch, sent);
        *signature = key(1).sign(&message);
    };
    with(&same, "do not exclude each other");
    // Another leaf of the claim, which does not give the tensor.
    let other_leaf = |claimed: &mut ClaimedLeaf, _: &mut Port, _: &mut [u8; 64]| {
        let [SignedHalf { signed, leaves }, _] = claims.claims[0].halves();
        let backward = leaves.iter().find(|leaf| leaf.phase == LeafPhase::Backward);
        *claimed = ClaimedLeaf::of(&signed, &leaves, &backward.unwrap().digest()).unwrap();
    };
    with(&other_leaf, "do not exclude each other");
}
