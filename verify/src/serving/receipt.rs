//! Checks that everything signed about an answer fits together, without computing any of it again.

use concord_proto::serving::{AnswerVerdict, BatchedReceipt, Finish, Receipt, StageClaim};
use concord_proto::{ARITHMETIC_VERSION, Digest, Edge, Layers, PublicKey, WorkerId};

use super::claim::{AnswerRules, first_gap};
use super::end::EndRules;

/// The claim of a stage in a receipt, and whose it is.
#[derive(Clone, Debug)]
pub struct ReceiptClaim {
    /// Who signed it.
    pub worker: WorkerId,
    /// The claim, opened.
    pub claim: StageClaim,
}

/// A receipt in which all that was signed fits together.
#[derive(Clone, Debug)]
pub struct CheckedReceipt {
    /// The receipt, opened.
    pub receipt: Receipt,
    /// Its claims by rising layers; those of some stages may be missing.
    pub claims: Vec<ReceiptClaim>,
    /// The tokens that went through the stages.
    pub tokens: Vec<u32>,
}

impl CheckedReceipt {
    /// Opens a receipt and the claims in it, and checks them by the rules. `coordinator` is the key
    /// that must have signed it; `None` accepts any signer.
    ///
    /// # Errors
    /// The verdict on a receipt that does not hold, or that this build cannot check.
    pub fn open(
        batched: &BatchedReceipt,
        coordinator: Option<PublicKey>,
    ) -> Result<Self, AnswerVerdict> {
        let receipt = batched
            .open()
            .map_err(|error| altered(format!("the receipt: {error}")))?;
        let signer = batched.signer();
        if let Some(coordinator) = coordinator.filter(|key| *key != signer) {
            let (found, due) = (signer.short(), coordinator.short());
            let what = format!("the receipt is signed by {found}, not by the coordinator {due}");
            return Err(altered(what));
        }
        let version = receipt.deployment.arithmetic;
        if version != ARITHMETIC_VERSION {
            let why = format!("it is of arithmetic {version}, this build has {ARITHMETIC_VERSION}");
            return Err(inconclusive(why));
        }
        check_answer(&receipt)?;
        let Receipt {
            deployment,
            spec,
            answer,
            logprobs,
            ..
        } = &receipt;
        let rules = AnswerRules::new(deployment, spec, answer, logprobs);
        rules.check_logprobs().map_err(altered)?;
        let claims = open_claims(&rules, &receipt)?;
        let named = claims.iter().map(|one| (one.worker, &one.claim));
        if let Some((sender, receiver)) = first_gap(named) {
            return Err(AnswerVerdict::Gap { sender, receiver });
        }
        let tokens = rules.tokens();
        Ok(Self {
            receipt,
            claims,
            tokens,
        })
    }

    /// Checks that a model has the number of layers and the vocabulary that the receipt states.
    ///
    /// # Errors
    /// The verdict: it cannot be judged by this model.
    pub fn check_model(&self, layers: usize, vocab: usize) -> Result<(), AnswerVerdict> {
        let deployment = &self.receipt.deployment;
        let due = (deployment.layers as usize, deployment.vocab as usize);
        if due == (layers, vocab) {
            return Ok(());
        }
        let why = "the model at hand is not the one of the receipt";
        Err(inconclusive(why))
    }

    /// The model cut into the layers of each claim, in order, and those that nobody claims.
    pub fn cuts(&self) -> Vec<(Layers, Option<&ReceiptClaim>)> {
        let mut cuts = Vec::new();
        let mut start = Edge::default();
        let mut between = |cuts: &mut Vec<_>, end: Edge, next: Edge| {
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
        let end = Edge::from(self.receipt.deployment.layers);
        between(&mut cuts, end, end);
        cuts
    }

    /// A sentence that names the layers that nobody claims, if there are any.
    pub fn missing(&self) -> Option<String> {
        let cuts = self.cuts();
        let unclaimed = cuts.iter().filter(|(_, claimed)| claimed.is_none());
        let unclaimed: Vec<String> = unclaimed.map(|(layers, _)| layers.to_string()).collect();
        let missing = format!("nobody claims the layers {}", unclaimed.join(", "));
        (!unclaimed.is_empty()).then_some(missing)
    }
}

fn altered(what: impl Into<String>) -> AnswerVerdict {
    let what = what.into();
    AnswerVerdict::Altered { what }
}

fn inconclusive(why: impl Into<String>) -> AnswerVerdict {
    let why = why.into();
    AnswerVerdict::Inconclusive { why }
}

/// Checks everything in the receipt but its claims and logprobs.
fn check_answer(receipt: &Receipt) -> Result<(), AnswerVerdict> {
    let Receipt {
        deployment,
        spec,
        answer,
        finish,
        usage,
        ..
    } = receipt;
    let (prompt, count) = (spec.prompt.len() as u64, answer.len() as u64);
    if spec.deployment != deployment.id() {
        return Err(altered("the spec is for another deployment"));
    }
    spec.check_bounds()
        .map_err(|why| altered(format!("the spec: {why}")))?;
    // A prompt that is only scored has no answer.
    let is_scored = spec.max_tokens == 0 && spec.prompt_logprobs.is_some() && prompt > 1;
    if prompt == 0 || answer.is_empty() && !is_scored {
        return Err(inconclusive("prompt or answer has no tokens"));
    }
    let mut all = spec.prompt.iter().chain(answer);
    if let Some(token) = all.find(|token| **token >= deployment.vocab) {
        let vocab = deployment.vocab;
        return Err(altered(format!("token {token} of a vocabulary of {vocab}")));
    }
    let positions = u64::from(deployment.positions);
    if count > u64::from(spec.max_tokens) || prompt + count > positions + 1 {
        return Err(altered("the answer is longer than it may be"));
    }
    let stops = |token: &u32| spec.stop_tokens.contains(token);
    if answer.iter().rev().skip(1).any(stops) {
        return Err(altered("the answer goes on after a stop token"));
    }
    let rules = EndRules {
        spec,
        answer,
        positions: deployment.positions,
    };
    rules.check(*finish).map_err(altered)?;
    if *finish == Finish::Cancelled && receipt.text != Digest::default() {
        return Err(altered(
            "it has the text that was sent, and not why it ended",
        ));
    }
    if (u64::from(usage.prompt), u64::from(usage.answer)) != (prompt, count) {
        return Err(altered("the tokens in its usage are not those in it"));
    }
    Ok(())
}

/// Opens the claims of a receipt. A coordinator takes no claim that breaks a rule, so the signer of
/// a receipt with such a claim has altered it.
fn open_claims(rules: &AnswerRules, receipt: &Receipt) -> Result<Vec<ReceiptClaim>, AnswerVerdict> {
    let mut claims: Vec<ReceiptClaim> = Vec::new();
    let mut end = Edge::default();
    for signed in &receipt.claims {
        let worker = signed.signer;
        let of_claim = |why: String| altered(format!("the claim of {}: {why}", worker.short()));
        let claim: StageClaim = signed.open().map_err(|why| of_claim(why.to_string()))?;
        rules.check(&claim).map_err(of_claim)?;
        if claim.layers.start < end {
            return Err(of_claim(
                "its layers do not follow those before".to_string(),
            ));
        }
        end = claim.layers.end;
        claims.push(ReceiptClaim { worker, claim });
    }
    Ok(claims)
}
