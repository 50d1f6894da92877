//! What is signed about an answer.

use borsh::{BorshDeserialize, BorshSerialize};

use super::deployment::{Deployment, DeploymentId};
use super::generation::{Finish, GenerationSpec, TokenLogprob, Usage};
use crate::crypto::{Digest, Domain, Signed, WorkerId};
use crate::training::Layers;

/// Asks a stage to claim a sequence, while its pages are still held.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClaimOrder {
    /// Number of the order, which the reply repeats.
    pub order: u64,
    pub sequence: u64,
    /// Digest of the [`GenerationSpec`].
    pub spec: Digest,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Positions that went through the stages: prompt and answer but the last token.
    pub positions: u32,
    /// Pages of the sequence.
    pub pages: Vec<u32>,
}

/// A stage's commitment to its share of an answer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageClaim {
    pub deployment: DeploymentId,
    /// Digest of the [`GenerationSpec`].
    pub spec: Digest,
    /// Version of the arithmetic contract.
    pub arithmetic: u32,
    /// The layers that were computed.
    pub layers: Layers,
    /// Positions that went through them, from 0.
    pub positions: u32,
    /// What came in: [`tokens_digest`] of the tokens for the first stage, else the Merkle root over
    /// the digests of the rows.
    pub input: Digest,
    /// What went out: the Merkle root over the digests of the rows; for the last stage, of the
    /// hidden states that the head takes.
    pub output: Digest,
    /// For the last stage: what it drew and scored.
    pub drawn: Option<ClaimedDraws>,
    /// What the worker says its device is.
    pub device: String,
}

/// What the last stage drew and scored, with the logprobs that were asked for: Merkle roots over
/// [`TokenLogprob::digest`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClaimedDraws {
    /// Tokens of the answer that an earlier holder of the stage had drawn.
    pub earlier: u32,
    /// The root over those that this one drew.
    pub tokens: Digest,
    /// The root over the tokens of the prompt but the first. `None` where nobody asked for their
    /// logprobs, or an earlier holder gave them.
    pub scored: Option<Digest>,
}

/// The logprobs that a client was given, as it had asked for them. A receipt has their values, and
/// not a digest alone: the client got them as decimals, by the texts of tokens and never above 0,
/// from which no digest can be taken. So it compares numbers with numbers, without the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GivenLogprobs {
    /// Of the prompt's tokens but the first; empty where nobody asked.
    pub prompt: Vec<TokenLogprob>,
    /// Of the answer's tokens; empty where nobody asked.
    pub answer: Vec<TokenLogprob>,
}

/// A record of an answer, which the coordinator signs in a batch ([`super::BatchedReceipt`]).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// Its name.
    pub id: String,
    /// What was served.
    pub deployment: Deployment,
    /// The name of the model in the request.
    pub model: String,
    /// Everything that the answer is a function of.
    pub spec: GenerationSpec,
    /// All tokens that were drawn. After a stop text there may be some that were not sent.
    pub answer: Vec<u32>,
    pub logprobs: GivenLogprobs,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub usage: Usage,
    /// Digest of the request's body, under [`Domain::Text`].
    pub body: Digest,
    /// Digest of the text that was sent, under [`Domain::Text`]; zeros where the client was gone.
    pub text: Digest,
    /// A signed [`StageClaim`] of each stage, in order. A stage that left before it claimed is
    /// missing.
    pub claims: Vec<Signed>,
    /// Seconds since 1970.
    pub issued: u64,
}

/// An order to a checker: compute an answer again.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditedAnswer {
    /// Number of the order.
    pub order: u64,
    /// Blob address of the [`super::BatchedReceipt`].
    pub receipt: Digest,
}

/// What came of computing an answer again.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AnswerVerdict {
    /// Tokens and claims are right.
    Agrees,
    /// A stage claims another output than its input gives.
    WrongStage {
        /// Who signed the claim.
        worker: WorkerId,
        layers: Layers,
        /// What it should be.
        expected: Digest,
        /// What it claims.
        claimed: Digest,
    },
    /// Two neighbours claim different things about what passed between them.
    Gap {
        /// Who says that it sent one thing.
        sender: WorkerId,
        /// Who says that it received another.
        receiver: WorkerId,
    },
    /// The last stage drew another token than its hidden states give.
    WrongDraw {
        /// Who signed the claim.
        worker: WorkerId,
        /// Index in the answer.
        index: u32,
        /// What it should be.
        expected: u32,
        /// What the receipt has.
        found: u32,
    },
    /// The last stage gave out another logprob, or other alternatives, than its hidden states give.
    WrongLogprob {
        /// Who signed the claim.
        worker: WorkerId,
        /// Where the token stands, in prompt and answer.
        position: u32,
        /// [`TokenLogprob::digest`] of what it should be.
        expected: Digest,
        /// That of what the receipt has.
        found: Digest,
    },
    /// The receipt has other tokens than the stages took in or drew, or another end or text than
    /// they give: the coordinator altered them.
    Altered {
        /// What does not fit.
        what: String,
    },
    /// It cannot be judged: claims are missing, the model is unavailable, versions differ.
    Inconclusive { why: String },
}

/// The digest of token ids.
pub fn tokens_digest(tokens: &[u32]) -> Digest {
    Digest::of_value(Domain::Tokens, &tokens)
}

/// The digest of a row of hidden states, `[d]`.
pub fn row_digest(row: &[f32]) -> Digest {
    let mut hasher = crate::crypto::Hasher::new(Domain::Row);
    let mut bytes = [0; 4_096];
    for part in row.chunks(bytes.len() / 4) {
        let used = &mut bytes[..4 * part.len()];
        for (target, value) in used.chunks_exact_mut(4).zip(part) {
            target.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(used);
    }
    hasher.finish()
}
