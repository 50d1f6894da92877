//! The header of a tensor on its way between workers.

use borsh::{BorshDeserialize, BorshSerialize};

use super::attempt::AttemptId;
use super::claim::{Origin, Port};
use super::job::JobId;

/// What precedes a tensor, or several, sent from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FrameHeader {
    pub job: JobId,
    /// The attempt at the step that it is of.
    pub attempt: AttemptId,
    /// The plan's epoch.
    pub epoch: u32,
    pub step: u32,
    /// The microbatch, or the first of a node.
    pub microbatch: u32,
    /// What it is, and its digest.
    pub port: Port,
    /// The sender and its signature over [`Origin::message`].
    pub origin: Origin,
    /// Bytes that follow: tensor blobs, one after another.
    pub bytes: u64,
}
