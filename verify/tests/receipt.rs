//! Receipts: a valid one opens, and any alteration is blamed on the signer.

use concord_proto::serving::{
    AnswerVerdict, Deployment, Finish, GenerationSpec, Receipt, SamplingSpec, ServedPrecision,
    StageClaim, Usage, tokens_digest,
};
use concord_proto::{ARITHMETIC_VERSION, Digest, F32Bits, Keypair, Layers, PublicKey, Signed};
use concord_verify::serving::CheckedReceipt;

fn key(index: u8) -> Keypair {
    Keypair::from_secret([index; 32])
}

fn id(index: u8) -> PublicKey {
    key(index).public()
}

const COORDINATOR: u8 = 9;

fn deployment() -> Deployment {
    Deployment {
        arithmetic: ARITHMETIC_VERSION,
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        layers: 6,
        vocab: 10,
        positions: 64,
        precision: ServedPrecision::of(16),
    }
}

fn spec() -> GenerationSpec {
    let zero = F32Bits::from(0.0);
    GenerationSpec {
        deployment: deployment().id(),
        adapter: None,
        prompt: vec![1, 2, 3],
        sampling: SamplingSpec {
            temperature: zero,
            top_k: 0,
            top_p: zero,
            seed: 0,
            frequency_penalty: zero,
            presence_penalty: zero,
            logit_bias: Vec::new(),
            grammar: None,
        },
        max_tokens: 2,
        stop_tokens: vec![9],
    }
}

/// The claims of three stages for the answer `[4, 5]`, by workers 1, 2 and 3.
fn claims() -> [StageClaim; 3] {
    let edge = |index: u8| Digest([20 + index; 32]);
    [0, 1, 2].map(|index: u8| StageClaim {
        deployment: deployment().id(),
        spec: spec().digest(),
        arithmetic: ARITHMETIC_VERSION,
        layers: Layers::new(2 * u32::from(index), 2 * u32::from(index) + 2),
        positions: 4,
        input: match index {
            0 => tokens_digest(&[1, 2, 3, 4]),
            _ => edge(index),
        },
        output: edge(index + 1),
        drawn: (index == 2).then(|| (0, tokens_digest(&[4, 5]))),
        device: "made-up".to_string(),
    })
}

fn signed(claims: &[StageClaim; 3]) -> Vec<Signed> {
    let signed = (1..)
        .zip(claims)
        .map(|(worker, claim)| Signed::new(&key(worker), claim));
    signed.collect()
}

fn receipt() -> Receipt {
    Receipt {
        id: "cmpl-1".to_string(),
        deployment: deployment(),
        model: "tiny".to_string(),
        spec: spec(),
        answer: vec![4, 5],
        finish: Finish::Length,
        usage: Usage {
            prompt: 3,
            cached: 0,
            answer: 2,
        },
        body: Digest::default(),
        text: Digest::default(),
        claims: signed(&claims()),
        issued: 0,
    }
}

fn open(receipt: &Receipt) -> Result<CheckedReceipt, AnswerVerdict> {
    CheckedReceipt::open(
        &Signed::new(&key(COORDINATOR), receipt),
        Some(id(COORDINATOR)),
    )
}

/// The verdict on a receipt that was changed.
fn changed(change: impl Fn(&mut Receipt)) -> AnswerVerdict {
    let mut receipt = receipt();
    change(&mut receipt);
    open(&receipt).expect_err("it was changed")
}

/// The verdict on a receipt one of whose claims says something else.
fn claimed(stage: usize, change: impl Fn(&mut StageClaim)) -> AnswerVerdict {
    let mut all = claims();
    change(&mut all[stage]);
    changed(|receipt| receipt.claims = signed(&all))
}

fn assert_altered(verdict: &AnswerVerdict, words: &str) {
    let fits = matches!(verdict, AnswerVerdict::Altered { what } if what.contains(words));
    assert!(fits, "{words}: {verdict:?}");
}

#[test]
fn a_right_receipt_opens() {
    let checked = open(&receipt()).unwrap();
    assert_eq!(checked.tokens, [1, 2, 3, 4]);
    let workers: Vec<PublicKey> = checked.claims.iter().map(|one| one.worker).collect();
    assert_eq!(workers, [id(1), id(2), id(3)]);
    assert_eq!(checked.missing(), None);
    assert_eq!(checked.check_model(6, 10), Ok(()));
    for (layers, vocab) in [(5, 10), (6, 11)] {
        let verdict = checked.check_model(layers, vocab).unwrap_err();
        assert!(matches!(verdict, AnswerVerdict::Inconclusive { .. }));
    }
}

#[test]
fn what_the_receipt_says_must_fit_its_spec() {
    assert_altered(
        &changed(|r| r.spec.deployment.0 = Digest([8; 32])),
        "another deployment",
    );
    assert_altered(&changed(|r| r.answer[0] = 10), "vocabulary of 10");
    assert_altered(&changed(|r| r.spec.max_tokens = 1), "longer than it may be");
    assert_altered(&changed(|r| r.answer[0] = 9), "after a stop token");
    assert_altered(&changed(|r| r.answer.truncate(1)), "before its length");
    assert_altered(&changed(|r| r.usage.answer = 1), "usage");
    assert_altered(&changed(|r| r.answer[1] = 6), "drawn other tokens");
    for empty in [
        |r: &mut Receipt| r.answer.clear(),
        |r: &mut Receipt| r.spec.prompt.clear(),
    ] {
        assert!(matches!(changed(empty), AnswerVerdict::Inconclusive { .. }));
    }
    let newer = |r: &mut Receipt| r.deployment.arithmetic += 1;
    assert!(matches!(changed(newer), AnswerVerdict::Inconclusive { .. }));
}

#[test]
fn a_receipt_has_no_claim_that_a_coordinator_would_not_take() {
    assert_altered(
        &claimed(0, |c| c.deployment.0 = Digest([8; 32])),
        "another deployment",
    );
    assert_altered(
        &claimed(1, |c| c.spec = Digest([8; 32])),
        "another generation",
    );
    assert_altered(&claimed(1, |c| c.arithmetic += 1), "another arithmetic");
    assert_altered(&claimed(1, |c| c.positions = 3), "positions");
    assert_altered(&claimed(1, |c| c.layers.end = 9.into()), "lacks");
    assert_altered(&claimed(1, |c| c.layers.start = 1.into()), "do not follow");
    assert_altered(&claimed(0, |c| c.input = Digest([8; 32])), "as its input");
    assert_altered(&claimed(2, |c| c.drawn = None), "what it drew");
    assert_altered(
        &claimed(2, |c| c.drawn = Some((3, tokens_digest(&[])))),
        "disowns",
    );
    assert_altered(
        &claimed(0, |c| c.drawn = Some((2, tokens_digest(&[])))),
        "to have drawn",
    );
    assert_altered(&changed(|r| r.claims[1].signature[0] ^= 1), "signature");
    assert_altered(&changed(|r| r.claims.swap(0, 1)), "do not follow");
}

#[test]
fn a_receipt_is_its_coordinators() {
    let other = Signed::new(&key(8), &receipt());
    let verdict = CheckedReceipt::open(&other, Some(id(COORDINATOR))).unwrap_err();
    assert_altered(&verdict, "not by the coordinator");
    assert!(CheckedReceipt::open(&other, None).is_ok());
    let mut forged = Signed::new(&key(COORDINATOR), &receipt());
    forged.body[0] ^= 1;
    assert_altered(
        &CheckedReceipt::open(&forged, None).unwrap_err(),
        "the receipt",
    );
}

#[test]
fn neighbours_who_differ_are_both_named() {
    let verdict = claimed(1, |c| c.output = Digest([8; 32]));
    let (sender, receiver) = (id(2), id(3));
    assert_eq!(verdict, AnswerVerdict::Gap { sender, receiver });
}

#[test]
fn layers_that_nobody_claims_are_named() {
    let mut receipt = receipt();
    receipt.claims.remove(1);
    let checked = open(&receipt).unwrap();
    let cuts: Vec<(u32, bool)> = checked
        .cuts()
        .iter()
        .map(|(layers, claim)| (layers.end.layer, claim.is_some()))
        .collect();
    assert_eq!(cuts, [(2, true), (4, false), (6, true)]);
    assert!(checked.missing().unwrap().contains("2..4"));
    // The first claim of a receipt need not be the first stage's.
    receipt.claims.remove(0);
    assert!(open(&receipt).unwrap().missing().unwrap().contains("0..4"));
}
