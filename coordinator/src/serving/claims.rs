//! Whether what stages claim of an answer fits the answer and each other.

use concord_proto::serving::{Deployment, GenerationSpec, StageClaim, tokens_digest};
use concord_proto::{Digest, Layers, Signed, WorkerId};

/// An answer, as its claims have to fit it.
pub(super) struct Claimed<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a GenerationSpec,
    pub(super) answer: &'a [u32],
    /// Tokens that the last stage may not have drawn itself: an earlier holder did.
    pub(super) before: u32,
    /// Who holds which layers, in order.
    pub(super) seats: &'a [(WorkerId, Layers)],
}

impl Claimed<'_> {
    /// Positions that went through the stages.
    pub(super) fn positions(&self) -> u32 {
        let all = self.spec.prompt.len() + self.answer.len();
        all.saturating_sub(1) as u32
    }

    /// The claim of a seat, where it fits the answer.
    ///
    /// # Errors
    /// What does not fit: the worker is not to be trusted.
    pub(super) fn check(&self, seat: usize, signed: &Signed) -> Result<StageClaim, String> {
        let Some((worker, layers)) = self.seats.get(seat) else {
            return Err("it claims a seat that is none".to_string());
        };
        if signed.signer != *worker {
            return Err("its claim is signed by another key".to_string());
        }
        let claim: StageClaim = signed.open().map_err(|why| why.to_string())?;
        let is_first = seat == 0;
        let is_last = seat + 1 == self.seats.len();
        let checks: [(&str, bool); 6] = [
            (
                "another deployment",
                claim.deployment == self.deployment.id(),
            ),
            ("another generation", claim.spec == self.spec.digest()),
            (
                "another arithmetic",
                claim.arithmetic == self.deployment.arithmetic,
            ),
            ("other layers", claim.layers == *layers),
            (
                "another number of positions",
                claim.positions == self.positions(),
            ),
            (
                "other tokens as its input",
                !is_first || claim.input == self.input(),
            ),
        ];
        if let Some((what, _)) = checks.iter().find(|(_, holds)| !holds) {
            return Err(format!("it claims {what}"));
        }
        match (claim.drawn, is_last) {
            (None, false) => {}
            (Some((from, digest)), true) if from <= self.before => {
                let own = self.answer.get(from as usize..).unwrap_or_default();
                if digest != tokens_digest(own) {
                    return Err("it claims to have drawn other tokens than it reported".to_string());
                }
            }
            (Some(_), true) => return Err("it disowns tokens that it drew".to_string()),
            (Some(_), false) => return Err("it claims to have drawn tokens".to_string()),
            (None, true) => return Err("it does not say what it drew".to_string()),
        }
        Ok(claim)
    }

    /// The digest of the tokens that the first stage takes in.
    fn input(&self) -> Digest {
        let all = self.spec.prompt.iter().chain(self.answer).copied();
        let all: Vec<u32> = all.take(self.positions() as usize).collect();
        tokens_digest(&all)
    }
}

/// The first seat whose claimed input is not what the seat before claims to have given out.
pub(super) fn gap(claims: &[Option<StageClaim>]) -> Option<usize> {
    let pairs = claims.windows(2).enumerate();
    let differ = |pair: &[Option<StageClaim>]| match pair {
        [Some(sender), Some(receiver)] => sender.output != receiver.input,
        _ => false,
    };
    pairs
        .filter(|(_, pair)| differ(pair))
        .map(|(at, _)| at + 1)
        .next()
}

#[cfg(test)]
mod tests {
    use concord_proto::serving::{DeploymentId, SamplingSpec};
    use concord_proto::{ARITHMETIC_VERSION, F32Bits, Keypair, PrecisionSpec};

    use super::*;

    fn deployment() -> Deployment {
        Deployment {
            arithmetic: ARITHMETIC_VERSION,
            model: Digest([1; 32]),
            tokenizer: Digest([2; 32]),
            layers: 4,
            vocab: 10,
            positions: 64,
            precision: PrecisionSpec {
                weights: 16,
                activations: 16,
            },
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
        }
    }

    type Change = dyn Fn(&mut StageClaim);

    fn layers(start: u32, end: u32) -> Layers {
        Layers { start, end }
    }

    /// Claims of two stages for the answer `[4, 5]`, right in all.
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
            drawn: Some((0, tokens_digest(&[4, 5]))),
            ..first.clone()
        };
        [first, second]
    }

    #[test]
    fn a_claim_has_to_fit_the_answer() {
        let deployment = deployment();
        let spec = spec(deployment.id());
        let keys = [1, 2].map(|number| Keypair::from_secret([number; 32]));
        let seats = [
            (keys[0].public(), layers(0, 2)),
            (keys[1].public(), layers(2, 4)),
        ];
        let claimed = Claimed {
            deployment: &deployment,
            spec: &spec,
            answer: &[4, 5],
            before: 1,
            seats: &seats,
        };
        let check = |seat: usize, change: &Change| {
            let mut claim = claims(&spec)[seat].clone();
            change(&mut claim);
            let checked = claimed.check(seat, &Signed::new(&keys[seat], &claim));
            checked.map(drop)
        };
        let right: [&Change; 1] = [&|_| {}];
        for seat in 0..2 {
            assert_eq!(check(seat, right[0]), Ok(()));
        }
        assert_eq!(
            check(1, &|claim| claim.drawn = Some((1, tokens_digest(&[5])))),
            Ok(()),
            "an earlier holder drew the first token"
        );
        let wrong: [(usize, &str, &Change); 11] = [
            (0, "deployment", &|c| c.deployment.0 = Digest([9; 32])),
            (0, "generation", &|c| c.spec = Digest([9; 32])),
            (1, "arithmetic", &|c| c.arithmetic += 1),
            (1, "layers", &|c| c.layers.start = 1),
            (0, "positions", &|c| c.positions = 5),
            (0, "tokens as its input", &|c| {
                c.input = tokens_digest(&[1, 2, 3])
            }),
            (0, "to have drawn", &|c| {
                c.drawn = Some((0, tokens_digest(&[4, 5])))
            }),
            (1, "what it drew", &|c| c.drawn = None),
            (1, "other tokens", &|c| {
                c.drawn = Some((0, tokens_digest(&[4, 6])))
            }),
            (1, "disowns", &|c| c.drawn = Some((2, tokens_digest(&[])))),
            (1, "other tokens", &|c| {
                c.drawn = Some((1, tokens_digest(&[4, 5])))
            }),
        ];
        for (seat, words, change) in wrong {
            let why = check(seat, change).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        }
        let other = Signed::new(&keys[1], &claims(&spec)[0]);
        assert!(
            claimed
                .check(0, &other)
                .unwrap_err()
                .contains("another key")
        );
        let mut forged = Signed::new(&keys[0], &claims(&spec)[0]);
        forged.body[0] ^= 1;
        assert!(claimed.check(0, &forged).is_err());
    }

    #[test]
    fn a_gap_is_between_two_that_claim() {
        let spec = spec(deployment().id());
        let [first, second] = claims(&spec);
        let mut other = second.clone();
        other.input = Digest([9; 32]);
        let gap = |claims: &[&StageClaim]| {
            let claims: Vec<_> = claims.iter().map(|claim| Some((*claim).clone())).collect();
            super::gap(&claims)
        };
        assert_eq!(gap(&[&first, &second]), None);
        assert_eq!(gap(&[&first, &other]), Some(1));
        assert_eq!(super::gap(&[Some(first), None, Some(other)]), None);
    }
}
