//! The rules on claims of stages.

use concord_proto::serving::{DeploymentId, SamplingSpec, ServedPrecision};
use concord_proto::{ARITHMETIC_VERSION, F32Bits, Keypair};

use super::*;

fn deployment() -> Deployment {
    Deployment {
        arithmetic: ARITHMETIC_VERSION,
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        layers: 4,
        vocab: 10,
        positions: 64,
        precision: ServedPrecision::of(16),
    }
}

fn spec(deployment: DeploymentId) -> GenerationSpec {
    let zero = F32Bits::from(0.0);
    GenerationSpec {
        deployment,
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
        stop_tokens: Vec::new(),
        stop_texts: Vec::new(),
        readings: Vec::new(),
        logprobs: Some(1),
        prompt_logprobs: Some(0),
    }
}

fn scored(token: u32, logprob: f32, alternatives: u32) -> TokenLogprob {
    TokenLogprob {
        token,
        logprob: logprob.into(),
        top: (0..alternatives)
            .map(|other| (other, logprob.into()))
            .collect(),
    }
}

/// Of the prompt `[1, 2, 3]` and the answer `[4, 5]`.
fn given() -> GivenLogprobs {
    GivenLogprobs {
        prompt: [2, 3].map(|token| scored(token, -0.5, 0)).to_vec(),
        answer: [4, 5].map(|token| scored(token, -0.25, 1)).to_vec(),
    }
}

/// What a last stage claims that drew the answer from `earlier` on.
fn draws(earlier: u32) -> ClaimedDraws {
    let given = given();
    ClaimedDraws {
        earlier,
        tokens: merkle::root(&digests(&given.answer[earlier as usize..])),
        scored: Some(merkle::root(&digests(&given.prompt))),
    }
}

fn drawn(change: impl Fn(&mut ClaimedDraws)) -> Option<ClaimedDraws> {
    let mut drawn = draws(0);
    change(&mut drawn);
    Some(drawn)
}

const EARLIER: EarlierHolder = EarlierHolder {
    drawn: 1,
    has_scored: false,
};

type Change = dyn Fn(&mut StageClaim);

fn layers(start: u32, end: u32) -> Layers {
    Layers::new(start, end)
}

/// Valid claims of two stages for the answer `[4, 5]`.
fn claims(spec: &GenerationSpec) -> [StageClaim; 2] {
    let first = StageClaim {
        deployment: spec.deployment,
        spec: spec.digest(),
        arithmetic: ARITHMETIC_VERSION,
        layers: layers(0, 2),
        positions: 4,
        input: tokens_digest(&[1, 2, 3, 4]),
        output: Digest([6; 32]),
        drawn: None,
        device: "made-up".to_string(),
    };
    let second = StageClaim {
        layers: layers(2, 4),
        input: Digest([6; 32]),
        output: Digest([7; 32]),
        drawn: Some(draws(0)),
        ..first.clone()
    };
    [first, second]
}

#[test]
fn a_claim_has_to_fit_the_answer() {
    let deployment = deployment();
    let spec = spec(deployment.id());
    let keys = [1, 2].map(|number| Keypair::from_secret([number; 32]));
    let stages = [layers(0, 2), layers(2, 4)];
    let given = given();
    let rules = AnswerRules::new(&deployment, &spec, &[4, 5], &given);
    assert_eq!(rules.check_logprobs(), Ok(()));
    let check_signed = |stage: usize, signed: &Signed| {
        let (worker, layers) = (keys[stage].public(), stages[stage]);
        rules.check_holder(worker, layers, EARLIER, signed)
    };
    let check = |stage: usize, change: &Change| {
        let mut claim = claims(&spec)[stage].clone();
        change(&mut claim);
        check_signed(stage, &Signed::new(&keys[stage], &claim)).map(drop)
    };
    let right: [&Change; 1] = [&|_| {}];
    for stage in 0..2 {
        assert_eq!(check(stage, right[0]), Ok(()));
    }
    assert_eq!(
        check(1, &|claim| claim.drawn = Some(draws(1))),
        Ok(()),
        "an earlier holder drew the first token"
    );
    let wrong: [(usize, &str, &Change); 15] = [
        (0, "deployment", &|c| c.deployment.0 = Digest([9; 32])),
        (0, "generation", &|c| c.spec = Digest([9; 32])),
        (1, "arithmetic", &|c| c.arithmetic += 1),
        (0, "a device", &|c| c.device = "gpu\u{1b}[2J".to_string()),
        (0, "a device", &|c| c.device = "x".repeat(257)),
        (1, "layers", &|c| c.layers.start = 1.into()),
        (0, "positions", &|c| c.positions = 5),
        (0, "tokens as its input", &|c| {
            c.input = tokens_digest(&[1, 2, 3])
        }),
        (0, "to have drawn", &|c| c.drawn = Some(draws(0))),
        (1, "what it drew", &|c| c.drawn = None),
        (1, "other tokens or logprobs", &|c| {
            c.drawn = drawn(|drawn| drawn.tokens = tokens_digest(&[4, 5]))
        }),
        (1, "disowns tokens", &|c| c.drawn = Some(draws(2))),
        (1, "other tokens", &|c| {
            c.drawn = drawn(|drawn| drawn.earlier = 1)
        }),
        (1, "other logprobs of the prompt", &|c| {
            c.drawn = drawn(|drawn| drawn.scored = Some(drawn.tokens))
        }),
        (1, "disowns logprobs", &|c| {
            c.drawn = drawn(|drawn| drawn.scored = None)
        }),
    ];
    for (stage, words, change) in wrong {
        let why = check(stage, change).unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
    let other = Signed::new(&keys[1], &claims(&spec)[0]);
    assert!(check_signed(0, &other).unwrap_err().contains("another key"));
    let mut forged = Signed::new(&keys[0], &claims(&spec)[0]);
    forged.body[0] ^= 1;
    assert!(check_signed(0, &forged).is_err());
}

#[test]
fn nobody_disowns_more_tokens_than_the_answer_has() {
    // An earlier holder drew three tokens, and a stop text cut the answer down to two.
    let deployment = deployment();
    let spec = spec(deployment.id());
    let key = Keypair::from_secret([2; 32]);
    let given = given();
    let rules = AnswerRules::new(&deployment, &spec, &[4, 5], &given);
    let before = EarlierHolder {
        drawn: 3,
        has_scored: true,
    };
    let check = |earlier: u32| {
        let mut claim = claims(&spec)[1].clone();
        claim.drawn = Some(ClaimedDraws {
            earlier,
            tokens: merkle::root(&[]),
            scored: None,
        });
        rules.check_holder(
            key.public(),
            layers(2, 4),
            before,
            &Signed::new(&key, &claim),
        )
    };
    assert!(check(2).is_ok());
    assert!(check(3).unwrap_err().contains("more tokens"));
}

#[test]
fn logprobs_are_of_these_tokens_and_as_many_as_were_asked_for() {
    let deployment = deployment();
    let mut spec = spec(deployment.id());
    let check = |spec: &GenerationSpec, change: &dyn Fn(&mut GivenLogprobs)| {
        let mut given = given();
        change(&mut given);
        AnswerRules::new(&deployment, spec, &[4, 5], &given).check_logprobs()
    };
    let refused = |change: &dyn Fn(&mut GivenLogprobs)| check(&spec, change).unwrap_err();
    assert!(refused(&|given| _ = given.answer.pop()).contains("other tokens"));
    assert!(refused(&|given| given.prompt[0].token = 9).contains("of the prompt"));
    assert!(refused(&|given| given.answer[0] = scored(4, -1.0, 2)).contains("alternatives"));
    spec.logprobs = None;
    let refused = check(&spec, &|_| {}).unwrap_err();
    assert!(refused.contains("nobody asked"), "{refused}");
    // Tokens without logprobs are bound all the same.
    let (prompt, answer) = (given().prompt, Vec::new());
    let given = GivenLogprobs { prompt, answer };
    let rules = AnswerRules::new(&deployment, &spec, &[4, 5], &given);
    let mut claim = claims(&spec)[1].clone();
    let tokens = [4, 5].map(|token| TokenLogprob::unasked(token).digest());
    claim.drawn = Some(ClaimedDraws {
        tokens: merkle::root(&tokens),
        ..draws(0)
    });
    assert_eq!(rules.check(&claim), Ok(()));
    claim.drawn = Some(draws(0));
    assert!(rules.check(&claim).unwrap_err().contains("other tokens"));
}

#[test]
fn the_layers_of_a_claim_tell_its_stage() {
    let deployment = deployment();
    let spec = spec(deployment.id());
    let given = given();
    let rules = AnswerRules::new(&deployment, &spec, &[4, 5], &given);
    let check = |stage: usize, start: u32, end: u32| {
        let mut claim = claims(&spec)[stage].clone();
        claim.layers = layers(start, end);
        rules.check(&claim)
    };
    assert_eq!(check(0, 0, 3), Ok(()));
    assert!(check(0, 0, 4).unwrap_err().contains("what it drew"));
    assert!(check(1, 0, 4).unwrap_err().contains("as its input"));
    assert!(check(1, 2, 3).unwrap_err().contains("to have drawn"));
    for (start, end) in [(2, 2), (3, 2), (2, 5)] {
        assert!(check(1, start, end).unwrap_err().contains("lacks"));
    }
}

#[test]
fn a_gap_is_between_two_that_claim() {
    let spec = spec(deployment().id());
    let [first, second] = claims(&spec);
    let mut other = second.clone();
    other.input = Digest([9; 32]);
    let gap = |claims: &[&StageClaim]| first_gap((0..).zip(claims.iter().copied()));
    assert_eq!(gap(&[&first, &second]), None);
    assert_eq!(gap(&[&first, &other]), Some((0, 1)));
    // A stage without a claim is between the two.
    other.layers = layers(3, 4);
    assert_eq!(gap(&[&first, &other]), None);
}
