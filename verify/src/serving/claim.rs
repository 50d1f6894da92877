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
#[path = "claim_tests.rs"]
mod tests;
