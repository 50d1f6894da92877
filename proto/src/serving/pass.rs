//! One pass through a pipeline: runs of new tokens of several sequences.

use borsh::{BorshDeserialize, BorshSerialize};

use super::deployment::DeploymentId;
use super::draw::Drawn;
use crate::crypto::{Digest, Domain};
use crate::training::Origin;

/// New tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SequenceRun {
    /// The sequence: for logs, and for the digests that a stage stores until it claims them.
    pub sequence: u64,
    /// Position of the first new token.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The pages of the whole sequence, in order, up to the last new token. Keys and values before
    /// `first` are in them already.
    pub pages: Vec<u32>,
    /// The adapter. Runs of one adapter stand together in a pass.
    pub adapter: Option<Digest>,
}

/// A pass, from the coordinator to the first stage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Pass {
    /// Rises by one with each pass of an epoch, from 0.
    pub number: u64,
    pub runs: Vec<SequenceRun>,
    /// Their tokens, one run after another.
    pub tokens: Vec<u32>,
}

/// What precedes the hidden states `[rows, d]` (f32, little-endian) of a pass on their way from one
/// stage to the next.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PassHeader {
    pub deployment: DeploymentId,
    /// The plan's epoch.
    pub epoch: u32,
    /// Number of the pass.
    pub pass: u64,
    pub runs: Vec<SequenceRun>,
    /// The digest of each row ([`super::row_digest`]).
    pub rows: Vec<Digest>,
    /// The sender, and its signature over [`PassHeader::message`].
    pub origin: Origin,
}

impl PassHeader {
    /// What a sender signs.
    pub fn message(
        deployment: &DeploymentId,
        epoch: u32,
        pass: u64,
        runs: &[SequenceRun],
        rows: &[Digest],
    ) -> Digest {
        Digest::of_value(Domain::Pass, &(*deployment, epoch, pass, runs, rows))
    }

    /// Whether `origin` signed this header.
    pub fn is_signed(&self) -> bool {
        let message = Self::message(
            &self.deployment,
            self.epoch,
            self.pass,
            &self.runs,
            &self.rows,
        );
        self.origin
            .worker
            .verifies(&message, &self.origin.signature)
    }
}

/// The digest of the runs of a pass.
pub fn runs_digest(runs: &[SequenceRun]) -> Digest {
    Digest::of_value(Domain::Pass, &runs)
}

/// What came out of a pass, from the last stage to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PassResult {
    /// Number of the pass.
    pub pass: u64,
    /// By rising run.
    pub drawn: Vec<Drawn>,
}
