//! The rules on the claims of stages: they must fit the answer and each other.

use concord_proto::limits::is_name;
use concord_proto::serving::{
    ClaimedDraws, Deployment, DeploymentId, GenerationSpec, GivenLogprobs, StageClaim,
    TokenLogprob, tokens_digest,
};
use concord_proto::{Digest, Edge, Layers, Signed, WorkerId, merkle};

/// An answer that the claims of its stages are checked against.
#[derive(Clone, Debug)]
pub struct AnswerRules<'a> {
    deployment: &'a Deployment,
    spec: &'a GenerationSpec,
    answer: &'a [u32],
    logprobs: &'a GivenLogprobs,
    id: DeploymentId,
    spec_digest: Digest,
}

/// What the last stage may disown, because a holder before this one gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EarlierHolder {
    /// Tokens of the answer that it drew.
    pub drawn: u32,
    /// Whether it scored the prompt.
    pub has_scored: bool,
}

impl<'a> AnswerRules<'a> {
    /// The rules on the claims of `answer`, which the client was given with `logprobs`.
    pub fn new(
        deployment: &'a Deployment,
        spec: &'a GenerationSpec,
        answer: &'a [u32],
        logprobs: &'a GivenLogprobs,
    ) -> Self {
        Self {
            deployment,
            spec,
            answer,
            logprobs,
            id: deployment.id(),
            spec_digest: spec.digest(),
        }
    }

    /// Positions that went through the stages: prompt and answer but the last token.
    pub fn positions(&self) -> u32 {
        let all = self.spec.prompt.len() + self.answer.len();
        all.saturating_sub(1) as u32
    }

    /// The tokens at these positions, which the first stage takes in.
    pub fn tokens(&self) -> Vec<u32> {
        let all = self.spec.prompt.iter().chain(self.answer).copied();
        all.take(self.positions() as usize).collect()
    }

    /// Whether the logprobs are those that the spec asks for, of the tokens that there are.
    ///
    /// # Errors
    /// A sentence about the answer ("it has ...").
    pub fn check_logprobs(&self) -> Result<(), String> {
        let GivenLogprobs { prompt, answer } = self.logprobs;
        let scored = self.spec.prompt.get(1..).unwrap_or_default();
        fits(prompt, scored, self.spec.prompt_logprobs, "prompt")?;
        fits(answer, self.answer, self.spec.logprobs, "answer")
    }

    /// Checks the claim that the holder of a stage signed, and opens it. `earlier` is what the last
    /// stage may disown.
    ///
    /// # Errors
    /// A sentence about the claim ("it claims ..."), which its signer is to blame for.
    pub fn check_holder(
        &self,
        worker: WorkerId,
        layers: Layers,
        earlier: EarlierHolder,
        signed: &Signed,
    ) -> Result<StageClaim, String> {
        if signed.signer != worker {
            return Err("its claim is signed by another key".to_string());
        }
        let claim: StageClaim = signed.open().map_err(|why| why.to_string())?;
        if claim.layers != layers {
            return Err("it claims other layers".to_string());
        }
        self.check(&claim)?;
        let Some(drawn) = claim.drawn else {
            return Ok(claim);
        };
        if drawn.earlier > earlier.drawn {
            return Err("it disowns tokens that it drew".to_string());
        }
        if drawn.scored.is_none() && self.is_scored() && !earlier.has_scored {
            return Err("it disowns logprobs of the prompt that it gave".to_string());
        }
        Ok(claim)
    }

    /// Checks what must hold for a claim whoever signed it. The layers tell which stage is the
    /// first and which the last; the number of claims does not, because a receipt may lack some.
    ///
    /// # Errors
    /// A sentence about the claim ("it claims ...").
    pub fn check(&self, claim: &StageClaim) -> Result<(), String> {
        let Layers { start, end } = claim.layers;
        let is_first = start == 0;
        let checks: [(&str, bool); 7] = [
            ("another deployment", claim.deployment == self.id),
            ("another generation", claim.spec == self.spec_digest),
            (
                "another arithmetic",
                claim.arithmetic == self.deployment.arithmetic,
            ),
            (
                "a device whose name is too long or has control characters",
                is_name(&claim.device),
            ),
            (
                "layers that the model lacks",
                start < end && end <= Edge::from(self.deployment.layers),
            ),
            (
                "another number of positions",
                claim.positions == self.positions(),
            ),
            (
                "other tokens as its input",
                !is_first || claim.input == tokens_digest(&self.tokens()),
            ),
        ];
        if let Some((what, _)) = checks.iter().find(|(_, holds)| !holds) {
            return Err(format!("it claims {what}"));
        }
        self.check_drawn(claim)
    }

    /// Whether the logprobs of the prompt's tokens were asked for, and there are any.
    fn is_scored(&self) -> bool {
        self.spec.prompt_logprobs.is_some() && self.spec.prompt.len() > 1
    }

    /// The digests of the answer's tokens, each with its logprobs as far as they were asked for.
    fn drawn(&self) -> Vec<Digest> {
        match self.spec.logprobs {
            None => {
                let tokens = self.answer.iter().copied();
                let drawn = tokens.map(|token| TokenLogprob::unasked(token).digest());
                drawn.collect()
            }
            Some(_) => digests(&self.logprobs.answer),
        }
    }

    /// The last stage, and no other, claims tokens that it drew: those of the answer from some
    /// index to the end; and those of the prompt that it scored: all or none.
    fn check_drawn(&self, claim: &StageClaim) -> Result<(), String> {
        let is_last = claim.layers.end == self.deployment.layers;
        let drawn = match (claim.drawn, is_last) {
            (None, false) => return Ok(()),
            (Some(_), false) => return Err("it claims to have drawn tokens".to_string()),
            (None, true) => return Err("it does not say what it drew".to_string()),
            (Some(drawn), true) => drawn,
        };
        let ClaimedDraws {
            earlier,
            tokens,
            scored,
        } = drawn;
        match self.drawn().get(earlier as usize..) {
            None => return Err("it disowns more tokens than the answer has".to_string()),
            Some(own) if merkle::root(own) != tokens => {
                let what = "to have drawn other tokens or logprobs than those of the answer";
                return Err(format!("it claims {what}"));
            }
            Some(_) => {}
        }
        let given = || merkle::root(&digests(&self.logprobs.prompt));
        match scored {
            Some(_) if !self.is_scored() => {
                Err("it claims logprobs of the prompt that nobody asked for".to_string())
            }
            Some(root) if root != given() => {
                Err("it claims other logprobs of the prompt than were given".to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Whether logprobs are those of `tokens`, with as many alternatives as were asked for.
fn fits(
    given: &[TokenLogprob],
    tokens: &[u32],
    asked: Option<u8>,
    place: &str,
) -> Result<(), String> {
    let Some(asked) = asked else {
        return match given.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "it has logprobs of the {place} that nobody asked for"
            )),
        };
    };
    if !given.iter().map(|one| &one.token).eq(tokens) {
        return Err(format!(
            "it has logprobs of other tokens than those of the {place}"
        ));
    }
    match given.iter().all(|one| one.top.len() <= usize::from(asked)) {
        true => Ok(()),
        false => Err(format!(
            "it has more alternatives to tokens of the {place} than were asked for"
        )),
    }
}

fn digests(tokens: &[TokenLogprob]) -> Vec<Digest> {
    tokens.iter().map(TokenLogprob::digest).collect()
}

/// The first sender and receiver that claim different things about what passed between them.
/// `claims` come by rising layers, each with a name that the caller chooses. Two claims with
/// unclaimed layers between them are not compared.
pub fn first_gap<'a, N: Copy>(
    claims: impl IntoIterator<Item = (N, &'a StageClaim)>,
) -> Option<(N, N)> {
    let mut before: Option<(N, &StageClaim)> = None;
    for (name, receiver) in claims {
        if let Some((sender_name, sender)) = before
            && sender.layers.end == receiver.layers.start
            && sender.output != receiver.input
        {
            return Some((sender_name, name));
        }
        before = Some((name, receiver));
    }
    None
}

#[cfg(test)]
mod tests {
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
}
