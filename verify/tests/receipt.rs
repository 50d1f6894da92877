//! Receipts: a valid one opens, and any alteration is blamed on the signer.

use std::ops::Range;

use concord_proto::serving::{
    AnswerVerdict, BatchedReceipt, ClaimedDraws, Deployment, Finish, GenerationSpec, GivenLogprobs,
    GrammarSpec, Receipt, ReceiptBatch, SamplingSpec, ServedPrecision, StageClaim, TokenLogprob,
    Usage, tokens_digest,
};
use concord_proto::{
    ARITHMETIC_VERSION, Digest, F32Bits, Keypair, Layers, PublicKey, Signed, canonical, merkle,
};
use concord_verify::serving::{AnswerEnd, CheckedReceipt, EndRules};

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
        stop_texts: Vec::new(),
        readings: Vec::new(),
        logprobs: None,
        prompt_logprobs: Some(0),
    }
}

fn draws(earlier: u32, own: &[u32]) -> Option<ClaimedDraws> {
    let root = |tokens: &[TokenLogprob]| {
        let digests: Vec<Digest> = tokens.iter().map(TokenLogprob::digest).collect();
        merkle::root(&digests)
    };
    let own: Vec<TokenLogprob> = own.iter().map(|id| TokenLogprob::unasked(*id)).collect();
    Some(ClaimedDraws {
        earlier,
        tokens: root(&own),
        scored: Some(root(&scored())),
    })
}

/// The logprobs of the prompt.
fn scored() -> Vec<TokenLogprob> {
    let scored = |token| TokenLogprob {
        token,
        logprob: (-0.5).into(),
        top: Vec::new(),
    };
    vec![scored(2), scored(3)]
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
        drawn: draws(0, &[4, 5]).filter(|_| index == 2),
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
        logprobs: GivenLogprobs {
            prompt: scored(),
            answer: Vec::new(),
        },
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
        &BatchedReceipt::alone(&key(COORDINATOR), receipt),
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

/// What the client was given must be what the last stage claims, bit for bit.
#[test]
fn logprobs_are_those_of_the_last_stage() {
    let given = |change: &dyn Fn(&mut GivenLogprobs)| changed(|r| change(&mut r.logprobs));
    let nudge = |bits: F32Bits| F32Bits(bits.0 + 1);
    let nudged = given(&|l| l.prompt[1].logprob = nudge(l.prompt[1].logprob));
    assert_altered(&nudged, "other logprobs of the prompt");
    assert_altered(&given(&|l| l.prompt.clear()), "other tokens");
    let more = given(&|l| l.prompt[0].top = vec![(1, F32Bits::from(0.0))]);
    assert_altered(&more, "more alternatives");
    let unasked = given(&|l| l.answer = vec![TokenLogprob::unasked(4)]);
    assert_altered(&unasked, "nobody asked");
    assert_altered(&changed(|r| r.spec.logprobs = Some(21)), "top logprobs");
    // Who scored the prompt may have left; then nobody vouches for it.
    let mut all = claims();
    all[2].drawn.as_mut().unwrap().scored = None;
    let mut receipt = receipt();
    receipt.claims = signed(&all);
    assert!(open(&receipt).is_ok());
}

#[test]
fn why_it_ended_must_be_possible() {
    let said = |finish: Finish| changed(|r| r.finish = finish);
    assert_altered(&said(Finish::StopToken), "its last token is none");
    assert_altered(&said(Finish::StopText), "a stop text, and has none");
    assert_altered(&said(Finish::Grammar), "its grammar, and has none");
    let last = |r: &mut Receipt| r.answer[1] = 9;
    assert_altered(&changed(last), "is not said to have ended it");
    let told = changed(|r| {
        r.finish = Finish::Cancelled;
        r.text = Digest([1; 32]);
    });
    assert_altered(&told, "not why it ended");
    let mut cancelled = receipt();
    cancelled.finish = Finish::Cancelled;
    assert!(open(&cancelled).is_ok());
}

/// A stop token comes before a stop text, this before the grammar, and all before the length.
#[test]
fn the_end_follows_from_spec_and_tokens() {
    let mut spec = spec();
    spec.sampling.grammar = Some(GrammarSpec::JsonObject);
    let end = |answer: &[u32], by_text: Option<(u32, Finish)>| {
        let rules = EndRules {
            spec: &spec,
            answer,
            positions: 64,
        };
        let by_text = by_text.map(|(tokens, finish)| AnswerEnd { tokens, finish });
        let end = rules.end(by_text)?;
        Some((end.tokens, end.finish))
    };
    assert_eq!(end(&[4], None), None);
    assert_eq!(end(&[4, 5], None), Some((2, Finish::Length)));
    assert_eq!(end(&[9], None), Some((1, Finish::StopToken)));
    let text = Some((1, Finish::StopText));
    assert_eq!(end(&[4, 5], text), text);
    assert_eq!(end(&[4, 9], text), text, "the stop token came too late");
    let grammar = Some((1, Finish::Grammar));
    assert_eq!(end(&[4], grammar), grammar);
}

/// A prompt that is only scored can be judged, too.
#[test]
fn a_receipt_of_a_scored_prompt_opens() {
    let mut receipt = receipt();
    receipt.spec.max_tokens = 0;
    receipt.answer.clear();
    receipt.usage.answer = 0;
    let digest = receipt.spec.digest();
    let mut all = claims();
    for claim in &mut all {
        (claim.spec, claim.positions) = (digest, 2);
    }
    all[0].input = tokens_digest(&[1, 2]);
    all[2].drawn = draws(0, &[]);
    receipt.claims = signed(&all);
    assert_eq!(open(&receipt).unwrap().tokens, [1, 2]);
    receipt.spec.prompt_logprobs = None;
    let verdict = open(&receipt).unwrap_err();
    assert!(matches!(verdict, AnswerVerdict::Inconclusive { .. }));
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
    assert_altered(&claimed(2, |c| c.drawn = draws(3, &[])), "disowns");
    assert_altered(&claimed(0, |c| c.drawn = draws(2, &[])), "to have drawn");
    assert_altered(&changed(|r| r.claims[1].signature[0] ^= 1), "signature");
    assert_altered(&changed(|r| r.claims.swap(0, 1)), "do not follow");
}

#[test]
fn a_receipt_is_its_coordinators() {
    let other = BatchedReceipt::alone(&key(8), &receipt());
    let verdict = CheckedReceipt::open(&other, Some(id(COORDINATOR))).unwrap_err();
    assert_altered(&verdict, "not by the coordinator");
    assert!(CheckedReceipt::open(&other, None).is_ok());
    let mut forged = BatchedReceipt::alone(&key(COORDINATOR), &receipt());
    forged.batch.body[0] ^= 1;
    let verdict = CheckedReceipt::open(&forged, None).unwrap_err();
    assert_altered(&verdict, "the signature");
}

/// Alters a receipt of a batch, which is given with another batch.
type Lie = fn(&mut BatchedReceipt, &[BatchedReceipt], &[BatchedReceipt]);

/// Each receipt of a batch can be checked alone; with the path, the place or the batch of another
/// one it is refused, and so is one that was not there when the batch was signed.
#[test]
fn a_receipt_is_in_the_batch_that_was_signed() {
    let named = |id: usize| {
        let mut receipt = receipt();
        receipt.id = format!("cmpl-{id}");
        canonical::encode(&receipt)
    };
    let sign =
        |ids: Range<usize>| BatchedReceipt::sign(&key(COORDINATOR), ids.map(named).collect());
    for count in [1, 2, 7, 256] {
        let batch = sign(0..count);
        for (index, one) in batch.iter().enumerate() {
            assert_eq!(one.batch, batch[0].batch, "one signature");
            let opened = CheckedReceipt::open(one, Some(id(COORDINATOR))).unwrap();
            assert_eq!(opened.receipt.id, format!("cmpl-{index}"));
        }
    }
    let (batch, other) = (sign(0..7), sign(7..14));
    let lies: [Lie; 8] = [
        // The batch of other receipts, with and without their path.
        |one, _, other| one.batch = other[3].batch.clone(),
        |one, _, other| (one.batch, one.path) = (other[3].batch.clone(), other[3].path.clone()),
        // The path of a neighbour, or another place.
        |one, batch, _| one.path = batch[2].path.clone(),
        |one, _, _| one.path.index = 2,
        |one, _, _| one.path.count = 8,
        |one, _, _| one.path.siblings.truncate(1),
        // Another receipt in its place, or one that was altered.
        |one, _, other| one.receipt = other[3].receipt.clone(),
        |one, _, _| *one.receipt.last_mut().unwrap() ^= 1,
    ];
    for (number, lie) in lies.iter().enumerate() {
        let mut one = batch[3].clone();
        lie(&mut one, &batch, &other);
        let verdict = CheckedReceipt::open(&one, Some(id(COORDINATOR))).unwrap_err();
        println!("lie {number}: {verdict:?}");
        assert_altered(&verdict, "not in the batch");
    }
}

/// A coordinator that signs a number of receipts that its root does not have.
#[test]
fn a_batch_has_as_many_receipts_as_it_says() {
    let mut one = BatchedReceipt::alone(&key(COORDINATOR), &receipt());
    let mut batch: ReceiptBatch = one.batch.open().unwrap();
    batch.count = 2;
    one.batch = Signed::new(&key(COORDINATOR), &batch);
    let verdict = CheckedReceipt::open(&one, None).unwrap_err();
    assert_altered(&verdict, "not in the batch");
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
