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
            ("another deployment", claim.deployment == self.deployment.id()),
            ("another generation", claim.spec == self.spec.digest()),
            ("another arithmetic", claim.arithmetic == self.deployment.arithmetic),
            ("other layers", claim.layers == *layers),
            ("another number of positions", claim.positions == self.positions()),
            ("other tokens as its input", !is_first || claim.input == self.input()),
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
    pairs.filter(|(_, pair)| differ(pair)).map(|(at, _)| at + 1).next()
}
