//! The chain of step records: the proof of completion. It says nothing about machines.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain};
use crate::training::{F32Bits, JobId};

/// What one step did. The digest of the last record of a job is the job's hash.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StepRecord {
    pub job: JobId,
    /// Digest of the record before, or the job id for the first.
    pub previous: Digest,
    /// Counted from 0.
    pub step: u32,
    /// Root over the microbatches.
    pub batch_root: Digest,
    /// Mean loss over all predicted tokens of the step, in nats.
    pub loss: F32Bits,
    /// Global gradient norm before clipping.
    pub grad_norm: F32Bits,
    /// Learning rate of the step.
    pub learning_rate: F32Bits,
    /// Root over the trained tensors after the step.
    pub state_root: Digest,
    /// Root over the optimizer moments after the step.
    pub optimizer_root: Digest,
}

impl StepRecord {
    /// The record digest.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Step, self)
    }
}
