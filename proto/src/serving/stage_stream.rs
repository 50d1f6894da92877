//! The stage stream: messages between the coordinator and the holder of a stage while it serves,
//! beside the session. The worker opens it.

use borsh::{BorshDeserialize, BorshSerialize};

use super::deployment::DeploymentId;
use super::draw::DrawOrder;
use super::pass::{Pass, PassHeader, PassResult};
use super::receipt::ClaimOrder;
use crate::crypto::{Digest, Signed};

/// The first message of a stage stream, signed by the worker: its stage is loaded.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StageStreamHello {
    pub deployment: DeploymentId,
    /// Which pipeline.
    pub pipeline: u32,
    /// The plan's epoch.
    pub epoch: u32,
    /// Which stage.
    pub stage: u32,
    /// From the assignment.
    pub ticket: [u8; 32],
}

/// From the coordinator to a stage.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ToStage {
    /// Do a pass: to the first stage.
    Pass(Pass),
    /// What to draw from a pass: to the last stage.
    Draws(DrawOrder),
    /// Claim a sequence.
    Claim(ClaimOrder),
    /// Send the headers that the stage received for a sequence, because two claims contradict each
    /// other.
    Evidence {
        /// Number of the order, which the reply repeats.
        order: u64,
        sequence: u64,
    },
    /// Drop all that is stored about a sequence.
    Forget { sequence: u64 },
    /// Load an adapter.
    AddAdapter(Digest),
    /// Drop an adapter.
    RemoveAdapter(Digest),
}

/// From a stage to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FromStage {
    /// A pass has left the stage.
    Passed(Passed),
    /// What was drawn from a pass: from the last stage.
    Result(PassResult),
    /// A signed [`super::StageClaim`].
    Claimed {
        /// [`ClaimOrder::order`].
        order: u64,
        /// The claim, or why there is none.
        claim: Result<Signed, String>,
    },
    /// Headers, as received.
    Evidence {
        /// Number of the order.
        order: u64,
        headers: Vec<PassHeader>,
    },
    /// An adapter is loaded, or why not.
    Adapter {
        /// Which.
        adapter: Digest,
        /// Whether it is.
        outcome: Result<(), String>,
    },
    /// The stage before sent a pass that it did not sign, or rows that its signature does not
    /// cover.
    Refused {
        /// What is wrong with it.
        reason: String,
    },
    /// The stage cannot go on.
    Failed {
        /// Cause, place and remedy.
        reason: String,
    },
}

/// A pass that has left a stage: timings for metrics, and which sequences went wrong.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Passed {
    /// Number of the pass.
    pub pass: u64,
    pub rows: u32,
    /// [`super::runs_digest`] of the runs as the stage computed them: the stage before could have
    /// passed on others than the scheduler's.
    pub runs: Digest,
    /// Runs whose hidden states are not finite: they go on as zeros, and mean nothing.
    pub broken: Vec<u32>,
    /// Microseconds between arrival and start.
    pub queue_us: u32,
    /// Microseconds of computing.
    pub compute_us: u32,
    /// Microseconds in which the stage had nothing to do before the pass arrived.
    pub wait_us: u32,
    /// Microseconds from handing the first byte of the pass to the network until it took the last.
    pub wire_us: u32,
    /// Bytes that the pass took on its way to the next stage.
    pub bytes: u64,
}
