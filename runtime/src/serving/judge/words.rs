//! What was signed, and whether it fits together. Nothing is computed for it.

use concord_models::config::DecoderConfig;
use concord_proto::serving::{AnswerVerdict, Finish, Receipt, StageClaim, tokens_digest};
use concord_proto::{ARITHMETIC_VERSION, Layers, PublicKey, Signed, WorkerId};

use super::Stop;

/// A stage's claim, and whose it is.
pub(super) struct Claimed {
    pub(super) worker: WorkerId,
    pub(super) claim: StageClaim,
}

/// A receipt whose words fit together.
pub(super) struct Words {
    pub(super) receipt: Receipt,
    /// By rising layers; some may be missing.
    pub(super) claims: Vec<Claimed>,
    /// The tokens that went through the stages.
    pub(super) tokens: Vec<u32>,
}

/// Reads a receipt and all that is in it.
pub(super) fn read(signed: &Signed, coordinator: Option<PublicKey>) -> Result<Words, Stop> {
    let receipt: Receipt = signed
        .open()
        .map_err(|error| Stop::altered(format!("the receipt: {error}")))?;
    if let Some(coordinator) = coordinator.filter(|key| *key != signed.signer) {
        let (found, expected) = (signed.signer.short(), coordinator.short());
        let what = format!("the receipt is signed by {found}, not by the coordinator {expected}");
        return Err(Stop::altered(what));
    }
    let version = receipt.deployment.arithmetic;
    if version != ARITHMETIC_VERSION {
        let why = format!("it is of arithmetic {version}, this build has {ARITHMETIC_VERSION}");
        return Err(Stop::inconclusive(why));
    }
    check_answer(&receipt)?;
    let (prompt, answer) = (&receipt.spec.prompt, &receipt.answer);
    let tokens = [&prompt[..], &answer[..answer.len() - 1]].concat();
    let claims = read_claims(&receipt, tokens.len())?;
    let words = Words {
        receipt,
        claims,
        tokens,
    };
    words.check_tokens()?;
    words.check_edges()?;
    Ok(words)
}

/// What the receipt alone must be.
fn check_answer(receipt: &Receipt) -> Result<(), Stop> {
    let Receipt {
        deployment,
        spec,
        answer,
        finish,
        usage,
        ..
    } = receipt;
    let (prompt, count) = (spec.prompt.len() as u64, answer.len() as u64);
    let positions = u64::from(deployment.positions);
    if spec.deployment != deployment.id() {
        return Err(Stop::altered("the spec is for another deployment"));
    }
    if prompt == 0 || answer.is_empty() {
        return Err(Stop::inconclusive("prompt or answer has no tokens"));
    }
    let mut all = spec.prompt.iter().chain(answer);
    if let Some(token) = all.find(|token| **token >= deployment.vocab) {
        let vocab = deployment.vocab;
        return Err(Stop::altered(format!(
            "token {token} of a vocabulary of {vocab}"
        )));
    }
    if count > u64::from(spec.max_tokens) || prompt + count - 1 > positions {
        return Err(Stop::altered("the answer is longer than it may be"));
    }
    let before_last = &answer[..answer.len() - 1];
    if before_last
        .iter()
        .any(|token| spec.stop_tokens.contains(token))
    {
        return Err(Stop::altered("the answer goes on after a stop token"));
    }
    let at_end = count == u64::from(spec.max_tokens) || prompt + count >= positions;
    if *finish == Finish::Length && !at_end {
        return Err(Stop::altered(
            "the answer ends before its length is reached",
        ));
    }
    if (u64::from(usage.prompt), u64::from(usage.answer)) != (prompt, count) {
        return Err(Stop::altered("the tokens in its usage are not those in it"));
    }
    Ok(())
}

/// The claims of a receipt. A coordinator takes none in that does not fit.
fn read_claims(receipt: &Receipt, positions: usize) -> Result<Vec<Claimed>, Stop> {
    let (spec, id) = (receipt.spec.digest(), receipt.deployment.id());
    let mut claims: Vec<Claimed> = Vec::new();
    let mut end = 0;
    for signed in &receipt.claims {
        let altered = |why: &str| {
            let worker = signed.signer.short();
            Err(Stop::altered(format!("the claim of {worker}: {why}")))
        };
        let claim: StageClaim = match signed.open() {
            Ok(claim) => claim,
            Err(error) => return altered(&error.to_string()),
        };
        let Layers { start, end: to } = claim.layers;
        if (claim.deployment, claim.spec) != (id, spec) {
            return altered("it is about another answer");
        }
        if claim.positions as usize != positions {
            return altered("it is about another number of tokens");
        }
        if start < end || to <= start || to > receipt.deployment.layers {
            return altered("its layers do not follow those before");
        }
        if claim.drawn.is_some() != (to == receipt.deployment.layers) {
            return altered("tokens are drawn by the last stage, and by no other");
        }
        if claim.arithmetic != receipt.deployment.arithmetic {
            let why = format!("{} computes another arithmetic", signed.signer.short());
            return Err(Stop::inconclusive(why));
        }
        end = to;
        claims.push(Claimed {
            worker: signed.signer,
            claim,
        });
    }
    Ok(claims)
}

impl Words {
    /// The receipt's tokens are those that the first stage took in and the last one drew.
    fn check_tokens(&self) -> Result<(), Stop> {
        let (claims, answer) = (&self.claims, &self.receipt.answer);
        if let Some(first) = claims.first().filter(|first| first.claim.layers.start == 0)
            && first.claim.input != tokens_digest(&self.tokens)
        {
            let worker = first.worker.short();
            let what = format!("the first stage, {worker}, took in other tokens");
            return Err(Stop::altered(what));
        }
        let last = claims
            .last()
            .and_then(|last| Some((last, last.claim.drawn?)));
        if let Some((last, (earlier, drawn))) = last {
            let own = answer.get(earlier as usize..);
            if own.is_none_or(|own| tokens_digest(own) != drawn) {
                let worker = last.worker.short();
                let what = format!("the last stage, {worker}, drew other tokens");
                return Err(Stop::altered(what));
            }
        }
        Ok(())
    }

    /// Neighbours say the same about what passed between them.
    fn check_edges(&self) -> Result<(), Stop> {
        for pair in self.claims.windows(2) {
            let [sender, receiver] = pair else { continue };
            let touch = sender.claim.layers.end == receiver.claim.layers.start;
            if touch && sender.claim.output != receiver.claim.input {
                return Err(Stop::Verdict(AnswerVerdict::Gap {
                    sender: sender.worker,
                    receiver: receiver.worker,
                }));
            }
        }
        Ok(())
    }

    /// The model at hand has the shape that the receipt says.
    pub(super) fn check_model(&self, config: &DecoderConfig) -> Result<(), Stop> {
        let deployment = &self.receipt.deployment;
        let asked = (deployment.layers as usize, deployment.vocab as usize);
        if asked != (config.layers, config.vocab) {
            let why = "the model at hand is not the one of the receipt";
            return Err(Stop::inconclusive(why));
        }
        Ok(())
    }

    /// The stages of the claims, in order, and the layers between them that nobody claims.
    pub(super) fn cuts(&self) -> Vec<(Layers, Option<&Claimed>)> {
        let mut cuts = Vec::new();
        let mut start = 0;
        let mut between = |cuts: &mut Vec<_>, end: u32, next: u32| {
            if start < end {
                cuts.push((Layers { start, end }, None));
            }
            start = next;
        };
        for claimed in &self.claims {
            let layers = claimed.claim.layers;
            between(&mut cuts, layers.start, layers.end);
            cuts.push((layers, Some(claimed)));
        }
        let end = self.receipt.deployment.layers;
        between(&mut cuts, end, end);
        cuts
    }

    /// Which claims are missing, in words.
    pub(super) fn missing(&self) -> Option<String> {
        let cuts = self.cuts();
        let unclaimed = cuts.iter().filter(|(_, claimed)| claimed.is_none());
        let unclaimed: Vec<String> = unclaimed
            .map(|(layers, _)| format!("{}..{}", layers.start, layers.end))
            .collect();
        let missing = format!("nobody claims the layers {}", unclaimed.join(", "));
        (!unclaimed.is_empty()).then_some(missing)
    }
}
