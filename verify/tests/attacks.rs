//! Bundles altered by somebody who has all the keys: each lie is found, and its place named.

mod fixture;

use concord_proto::ledger::{Finding, LedgerEvent, Offence, claim_digest};
use concord_proto::*;
use concord_verify::training::bundle::{Bundle, VerifyError, verify};
use fixture::*;

fn refused(bundle: &Bundle) -> VerifyError {
    verify(bundle).expect_err("the bundle does not hold")
}

/// Demands a refusal that names the file and has all these words.
fn assert_refused(bundle: &Bundle, file: &str, words: &[&str]) {
    let error = refused(bundle);
    let text = error.to_string();
    assert_eq!(error.file, file, "{text}");
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

#[test]
fn claims_cannot_be_dropped_swapped_or_replaced() {
    let story = Story::honest();
    let mut dropped = story.bundle();
    dropped.claims[1].claims.remove(2);
    assert_refused(
        &dropped,
        "claims.steps",
        &["step 1", "3 claims, and 4 were committed"],
    );

    let mut swapped = story.bundle();
    swapped.claims[0].claims.swap(1, 3);
    assert_refused(
        &swapped,
        "claims.steps",
        &["claim of", "step 0", "ledger entry"],
    );

    let mut other_step = story.bundle();
    let replayed = other_step.claims[0].claims[0].clone();
    other_step.claims[1].claims[0] = replayed;
    assert_refused(&other_step, "claims.steps", &["step 1"]);

    let mut fewer_leaves = story.bundle();
    fewer_leaves.claims[0].claims[0].1.pop();
    assert_refused(&fewer_leaves, "claims.steps", &["its leaves are not those"]);

    let mut steps_swapped = story.bundle();
    steps_swapped.claims.swap(0, 1);
    assert_refused(&steps_swapped, "claims.steps", &["another step"]);

    let mut step_dropped = story.bundle();
    step_dropped.claims.pop();
    assert_refused(&step_dropped, "claims.steps", &["number of steps"]);
}

/// A story in which one claim of step 1 was altered by `alter` before it was signed, and everything
/// after it follows the altered one: what a coordinator that checks nothing would have committed.
fn with_claim(worker: usize, alter: impl Fn(&mut Claim, &mut Vec<Leaf>)) -> Bundle {
    let mut story = Story::honest();
    let (signed, mut leaves) = story.claims[1].claims[worker].clone();
    let mut claim: Claim = signed.open().unwrap();
    alter(&mut claim, &mut leaves);
    let key = (0..=u8::MAX)
        .map(key)
        .find(|k| k.public() == signed.signer)
        .unwrap();
    let signed = Signed::new(&key, &claim);
    let digest = claim_digest(&signed);
    story.claims[1].claims[worker] = (signed, leaves);
    let at = story.find_last(|event| matches!(event, LedgerEvent::Committed { .. }));
    if let LedgerEvent::Committed { claims, .. } = &mut story.events[at] {
        claims[worker] = digest;
    }
    story.bundle()
}

fn with_leaf(worker: usize, leaf: usize, alter: impl Fn(&mut Leaf)) -> Bundle {
    with_claim(worker, |claim, leaves| {
        alter(&mut leaves[leaf]);
        claim.leaf_root = leaf_root(leaves);
    })
}

#[test]
fn claims_that_break_the_rules_name_the_worker() {
    let culprit = id(2).to_string();
    let named = |bundle: &Bundle, words: &[&str]| {
        let mut all = vec!["step 1", culprit.as_str()];
        all.extend(words);
        assert_refused(bundle, "claims.steps", &all);
    };
    named(&with_claim(1, |claim, _| claim.step = 0), &["replayed"]);
    named(
        &with_claim(1, |claim, _| claim.job = JobId(made_up("other"))),
        &["replayed"],
    );
    named(
        &with_claim(1, |claim, _| claim.plan = made_up("other")),
        &["another plan"],
    );
    named(
        &with_claim(1, |claim, _| claim.arithmetic += 1),
        &["arithmetic"],
    );
    named(
        &with_claim(1, |claim, _| claim.device = "gpu\u{1b}[2J".to_string()),
        &["control characters"],
    );
    named(
        &with_claim(1, |claim, _| claim.state.truncate(1)),
        &["tensors"],
    );
    let uncovered = with_claim(1, |claim, leaves| {
        leaves.remove(2);
        claim.leaf_root = leaf_root(leaves);
    });
    named(&uncovered, &["leaves, not"]);
    named(
        &with_leaf(1, 0, |leaf| leaf.microbatch = 1),
        &["as its place demands"],
    );
    named(
        &with_leaf(1, 0, |leaf| leaf.inputs[0].port.digest = made_up("stale")),
        &["State"],
    );
    named(
        &with_leaf(1, 0, |leaf| leaf.inputs[1].port.digest = made_up("other")),
        &["Tokens"],
    );
    let forged = with_leaf(1, 0, |leaf| {
        let origin = leaf.inputs[2].origin.as_mut().unwrap();
        origin.signature[5] ^= 1;
    });
    named(&forged, &["forged", "no signature"]);
    let loss = with_leaf(1, 0, |leaf| leaf.outputs[0].digest = made_up("other loss"));
    named(&loss, &["another loss"]);
    let state = with_claim(1, |claim, _| claim.state[0].entry.value = made_up("other"));
    named(&state, &["does not give the state"]);
}

#[test]
fn claims_that_contradict_each_other_are_named() {
    let other_loss = with_claim(2, |claim, _| claim.loss = F32Bits::from(9.0));
    // The scalars tell which of the claims is wrong.
    let culprit = id(3).to_string();
    let words = ["step 1", "what the scalars", &culprit];
    assert_refused(&other_loss, "claims.steps", &words);
    let other_rate = with_claim(2, |claim, _| claim.learning_rate = F32Bits::from(9.0));
    assert_refused(&other_rate, "claims.steps", &["step 1", "differ in loss"]);
    // Worker 1 signs an activation to worker 2 and claims another one.
    let equivocation = with_leaf(0, 0, |leaf| leaf.outputs[0].digest = made_up("other"));
    let culprit = id(1).to_string();
    assert_refused(&equivocation, "claims.steps", &["equivocation", &culprit]);
}

#[test]
fn workers_that_all_lie_about_the_loss_are_named() {
    let mut story = Story::honest();
    let mut digests = Vec::new();
    for (signed, _) in &mut story.claims[1].claims {
        let mut claim: Claim = signed.open().unwrap();
        claim.loss = F32Bits::from(0.001);
        *signed = Signed::new(&key_of(&signed.signer), &claim);
        digests.push(claim_digest(signed));
    }
    let at = story.find_last(is_committed);
    if let LedgerEvent::Committed { claims, .. } = &mut story.events[at] {
        *claims = digests;
    }
    let culprit = id(1).to_string();
    assert_refused(
        &story.bundle(),
        "claims.steps",
        &["step 1", "what the scalars", &culprit],
    );
}

#[test]
fn records_must_follow_from_the_claims() {
    let mut story = Story::honest();
    story.records[1].loss = F32Bits::from(0.1);
    let digest = story.records[1].digest();
    let committed = story.find_last(|event| matches!(event, LedgerEvent::Committed { .. }));
    if let LedgerEvent::Committed { record, .. } = &mut story.events[committed] {
        *record = digest;
    }
    let completed = story.events.len() - 1;
    story.events[completed] = LedgerEvent::Completed { record: digest };
    assert_refused(
        &story.bundle(),
        "chain.records",
        &["record of step 1", "loss"],
    );
}

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

fn is_judged(event: &LedgerEvent) -> bool {
    matches!(event, LedgerEvent::Judged { .. })
}

fn is_committed(event: &LedgerEvent) -> bool {
    matches!(event, LedgerEvent::Committed { .. })
}

fn is_started(event: &LedgerEvent) -> bool {
    matches!(event, LedgerEvent::Started { .. })
}

/// The digest of a leaf of step 1.
fn leaf_of(story: &Story, worker: usize, leaf: usize) -> Digest {
    story.claims[1].claims[worker].1[leaf].digest()
}

#[test]
fn every_drawn_leaf_needs_a_verdict_that_counts() {
    let drop_last_verdict = |story: &mut Story| {
        let at = story.find_last(is_judged);
        story.events.remove(at);
    };
    refused_ledger(drop_last_verdict, &["audit of", "step 1", "drawn"]);
    let drop_inconclusive = |story: &mut Story| {
        let at = story.find_last(|e| matches!(e, LedgerEvent::Inconclusive { .. }));
        story.events.remove(at);
    };
    refused_ledger(drop_inconclusive, &["audit of", "drawn"]);
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
    refused_ledger(by(LAZY), &["audit of", "no checker that counts"]);
    let forged = |story: &mut Story| {
        let at = story.find_last(is_judged);
        let LedgerEvent::Judged { verdict } = &mut story.events[at] else {
            unreachable!();
        };
        verdict.signature[9] ^= 1;
    };
    refused_ledger(forged, &["signature"]);
    let convicted_later = |story: &mut Story| {
        let (at, claims, of) = (story.events.len() - 1, &story.claims[1], (0, 0));
        let agrees = verdict_on(CHECKER, claims, of, Finding::Agrees);
        let computed = others(&claims.claims[0].1[0]);
        let conviction = false_verdict(claims, of, agrees, computed);
        let convicted = convicted(id(CHECKER), Offence::FalseVerdict, conviction);
        story.events.insert(at, convicted);
    };
    refused_ledger(convicted_later, &["audit of", "no checker that counts"]);
}

#[test]
fn a_dispute_must_be_resolved() {
    let differs = Finding::Differs {
        computed: Vec::new(),
    };
    let open = |story: &mut Story| {
        let leaf = leaf_of(story, 0, 1);
        let verdict = verdict(CHECKER, (1, 3), id(1), leaf, differs.clone());
        let at = story.events.len() - 1;
        story.events.insert(at, LedgerEvent::Judged { verdict });
    };
    refused_ledger(open, &["another result", "not voided"]);
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
fn nonces_are_committed_to_before_the_claims() {
    let last_nonce = |story: &mut Story, new: [u8; 32]| {
        let at = story.find_last(is_committed);
        if let LedgerEvent::Committed { nonce, .. } = &mut story.events[at] {
            *nonce = new;
        }
    };
    refused_ledger(
        |story| last_nonce(story, [1; 32]),
        &["step 1 committed", "nonce"],
    );
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
    let reused = |story: &mut Story| {
        let known = nonce(0, 3);
        let at = story.find_last(is_started);
        if let LedgerEvent::Started {
            nonce_commitment, ..
        } = &mut story.events[at]
        {
            *nonce_commitment = draw::nonce_commitment(&known);
        }
        last_nonce(story, known);
    };
    refused_ledger(reused, &["step 1 started", "published before"]);
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
            .retain(|e| !matches!(e, LedgerEvent::Enrolled { worker, .. } if *worker == id(2)))
    };
    refused_ledger(stranger, &["not enrolled as a worker"]);
    let rates = |alter: fn(&mut Vec<draw::AuditRate>)| {
        move |story: &mut Story| {
            let at = story.find_last(is_committed);
            if let LedgerEvent::Committed { rates, .. } = &mut story.events[at] {
                alter(rates);
            }
        }
    };
    refused_ledger(rates(|rates| rates.swap(0, 1)), &["audit rates"]);
    refused_ledger(rates(|rates| rates[0].rate = (1 << 32) + 1), &["over 1"]);
    let mut other_job = Story::honest().bundle();
    other_job.spec.steps = 3;
    assert_refused(&other_job, "job.spec", &["the ledger is of"]);
}
