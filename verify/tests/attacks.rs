//! Claims and records altered by somebody who has all the keys: each lie is found, and its place
//! named.

mod fixture;

use concord_proto::ledger::{LedgerEvent, claim_digest};
use concord_proto::manifest::state_roots;
use concord_proto::session::Scalars;
use concord_proto::*;
use concord_verify::training::bundle::{Bundle, StepClaims, verify};
use concord_verify::training::split_leaves;
use fixture::*;

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
    fewer_leaves.claims[0].claims[0].leaves.pop();
    assert_refused(&fewer_leaves, "claims.steps", &["its leaves are not those"]);

    let mut other_half = story.bundle();
    let first_half = other_half.claims[0].claims[1].first_half.clone();
    other_half.claims[0].claims[0].first_half = first_half;
    assert_refused(&other_half, "claims.steps", &["its first half is not"]);

    let mut steps_swapped = story.bundle();
    steps_swapped.claims.swap(0, 1);
    assert_refused(&steps_swapped, "claims.steps", &["another step"]);

    let mut step_dropped = story.bundle();
    step_dropped.claims.pop();
    assert_refused(&step_dropped, "claims.steps", &["number of steps"]);
}

/// What a worker signs for a step, to be altered before it does.
struct Unsigned<'a> {
    half: &'a mut FirstHalf,
    claim: &'a mut Claim,
    leaves: &'a mut Vec<Leaf>,
}

/// A story in which one claim of step 1 was altered by `alter` before it was signed, and everything
/// after it follows the altered one: what a coordinator that checks nothing would have committed.
fn with_claim(worker: usize, alter: impl Fn(Unsigned)) -> Bundle {
    with_step(|at, unsigned, _| {
        if at == worker {
            alter(unsigned);
        }
    })
}

/// The same, with all claims of step 1 and its scalars.
fn with_step(mut alter: impl FnMut(usize, Unsigned, &mut Scalars)) -> Bundle {
    let mut story = Story::honest();
    let StepClaims {
        scalars, claims, ..
    } = &mut story.claims[1];
    let mut opened: Vec<(FirstHalf, Claim)> = Vec::new();
    for (index, submitted) in claims.iter_mut().enumerate() {
        let signer = key_of(&submitted.claim.signer);
        let mut half = submitted.first_half.open().unwrap();
        let mut claim = submitted.claim.open().unwrap();
        let unsigned = Unsigned {
            half: &mut half,
            claim: &mut claim,
            leaves: &mut submitted.leaves,
        };
        alter(index, unsigned, scalars);
        half.leaf_root = leaf_root(split_leaves(&submitted.leaves).0);
        submitted.first_half = Signed::new(&signer, &half);
        scalars.first_halves[index] = first_half_digest(&submitted.first_half);
        opened.push((half, claim));
    }
    let mut digests = Vec::new();
    for (submitted, (_, mut claim)) in claims.iter_mut().zip(opened) {
        let updates = submitted.leaves.iter_mut();
        for leaf in updates.filter(|leaf| leaf.phase == LeafPhase::Update) {
            let inputs = leaf.inputs.iter_mut();
            for input in inputs.filter(|input| input.port.kind == PortKind::Scalars) {
                input.port.digest = scalars.digest();
            }
        }
        claim.first_half = first_half_digest(&submitted.first_half);
        claim.leaf_root = leaf_root(split_leaves(&submitted.leaves).1);
        submitted.claim = Signed::new(&key_of(&submitted.claim.signer), &claim);
        digests.push(claim_digest(&submitted.claim));
    }
    let at = story.find_last(is_committed);
    if let LedgerEvent::Committed { claims, .. } = &mut story.events[at] {
        *claims = digests;
    }
    story.reveal_again();
    story.bundle()
}

fn with_leaf(worker: usize, leaf: usize, alter: impl Fn(&mut Leaf)) -> Bundle {
    with_claim(worker, |unsigned| alter(&mut unsigned.leaves[leaf]))
}

/// What is signed again without a change holds: the refusals below are of the changes.
#[test]
fn a_step_that_is_signed_again_holds() {
    verify(&with_step(|_, _, _| {})).unwrap();
}

#[test]
fn claims_that_break_the_rules_name_the_worker() {
    let culprit = id(2).to_string();
    let named = |bundle: &Bundle, words: &[&str]| {
        let mut all = vec!["step 1", culprit.as_str()];
        all.extend(words);
        assert_refused(bundle, "claims.steps", &all);
    };
    named(&with_claim(1, |u| u.claim.step = 0), &["replayed"]);
    named(&with_claim(1, |u| u.half.step = 0), &["replayed"]);
    let other_job = JobId(made_up("other"));
    named(&with_claim(1, |u| u.claim.job = other_job), &["replayed"]);
    named(&with_claim(1, |u| u.half.job = other_job), &["replayed"]);
    let other_plan = made_up("other");
    named(
        &with_claim(1, |u| u.half.plan = other_plan),
        &["another plan"],
    );
    named(&with_claim(1, |u| u.half.arithmetic += 1), &["arithmetic"]);
    named(
        &with_claim(1, |u| u.claim.device = "gpu\u{1b}[2J".to_string()),
        &["control characters"],
    );
    named(&with_claim(1, |u| u.claim.state.truncate(1)), &["tensors"]);
    let without = |leaf: usize| {
        with_claim(1, move |unsigned| {
            unsigned.leaves.remove(leaf);
        })
    };
    let last = Story::honest().claims[1].claims[1].leaves.len() - 1;
    named(&without(2), &["leaves, not"]);
    // Without its norms, and without its update.
    named(&without(last - 1), &["leaves, not"]);
    named(&without(last), &["leaves of updates, not"]);
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
    let norms = with_leaf(1, last - 1, |leaf| {
        leaf.outputs[0].digest = made_up("other norms");
    });
    named(&norms, &["norms of its leaf"]);
    let state = with_claim(1, |u| u.claim.state[0].entry.value = made_up("other"));
    named(&state, &["does not give the state"]);
    // The update adds up another sum than the one that the norms are of.
    let is_sum = |input: &&mut ClaimInput| matches!(input.port.kind, PortKind::Partial { .. });
    let sum = with_leaf(1, last, |leaf| {
        let input = leaf.inputs.iter_mut().find(is_sum).unwrap();
        input.port.digest = made_up("another sum");
    });
    named(&sum, &["than its norms"]);
}

#[test]
fn claims_that_contradict_each_other_are_named() {
    let other_state = with_claim(2, |u| {
        u.claim.state[0].entry.value = made_up("other");
        let after: Vec<_> = u.claim.state.iter().map(|state| state.entry).collect();
        let (values, _) = state_roots(&after);
        let update = u.leaves.last_mut().unwrap();
        let state = update
            .outputs
            .iter_mut()
            .find(|port| port.kind == PortKind::State);
        state.unwrap().digest = values;
    });
    assert_refused(
        &other_state,
        "claims.steps",
        &["step 1", "differ in the state"],
    );
    // Worker 1 signs an activation to worker 2 and claims another one.
    let equivocation = with_leaf(0, 0, |leaf| leaf.outputs[0].digest = made_up("other"));
    let culprit = id(1).to_string();
    assert_refused(&equivocation, "claims.steps", &["equivocation", &culprit]);
}

/// A coordinator sends scalars that are not what the workers reported, and all updates rest on
/// them.
#[test]
fn scalars_are_what_the_leaves_of_the_first_halves_bind() {
    let other_loss = with_step(|_, _, scalars| scalars.losses[0].sum = 9.0.into());
    assert_refused(&other_loss, "claims.steps", &["step 1", "another loss"]);
    let other_norm = with_step(|_, _, scalars| scalars.norms[1].squared = 1e20.into());
    assert_refused(
        &other_norm,
        "claims.steps",
        &["step 1", "norms of its leaf"],
    );
    for no_number in [f32::NAN, f32::INFINITY, -1.0] {
        let norm = with_step(|_, _, scalars| scalars.norms[1].squared = no_number.into());
        let words = ["scalars of step 1", "no number", "b.first"];
        assert_refused(&norm, "claims.steps", &words);
    }
    let overflowing = with_step(|_, _, scalars| {
        scalars
            .norms
            .iter_mut()
            .for_each(|norm| norm.squared = f32::MAX.into());
    });
    let words = ["scalars of step 1", "the gradient norm is inf"];
    assert_refused(&overflowing, "claims.steps", &words);
    let other_targets = with_step(|at, _, scalars| scalars.targets += u64::from(at == 0));
    assert_refused(&other_targets, "claims.steps", &["scalars", "other tokens"]);
    // They name a first half that nobody signed.
    let mut other_half = Story::honest().bundle();
    other_half.claims[1].scalars.first_halves[2] = made_up("other");
    assert_refused(&other_half, "claims.steps", &["scalars of step 1"]);
}

#[test]
fn records_must_follow_from_the_claims() {
    let altered = |alter: fn(&mut StepRecord), word: &str| {
        let mut story = Story::honest();
        alter(&mut story.records[1]);
        let digest = story.records[1].digest();
        let committed = story.find_last(is_committed);
        if let LedgerEvent::Committed { record, .. } = &mut story.events[committed] {
            *record = digest;
        }
        story.reveal_again();
        let completed = story.events.len() - 1;
        story.events[completed] = LedgerEvent::Completed { record: digest };
        let words = ["record of step 1", word];
        assert_refused(&story.bundle(), "chain.records", &words);
    };
    altered(|record| record.loss = 0.1.into(), "loss");
    altered(|record| record.grad_norm = 0.1.into(), "gradient norm");
    // The schedule of the spec gives the rate, and nobody else names one.
    altered(|record| record.learning_rate = 0.1.into(), "learning rate");
}
