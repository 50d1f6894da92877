//! What a pipeline is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use concord_proto::serving::{Control, FromStage};
use concord_proto::{Digest, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::answers::Answer;
use crate::core::Seat;
use crate::serving::Down;

/// What a pipeline is told.
pub(in super::super) enum Input {
    /// Answer a generation, or go on with it.
    Submit(Box<Submitted>),
    /// Whoever asked has a word on it.
    Control {
        sequence: u64,
        control: Control,
        /// The pipeline that has it.
        home: Arc<AtomicU32>,
    },
    /// Nobody wants it any more.
    Cancel { sequence: u64, home: Arc<AtomicU32> },
    /// The core has a new plan.
    Planned(Box<Planned>),
    /// The core has no plan.
    Down { reason: String },
    /// A stage is loaded.
    Lane(Box<Opened>),
    /// The notary wants the headers that a seat received for a sequence.
    Evidence { sequence: u64, seat: usize },
    /// The notary has checked the claims of a sequence.
    Checked { sequence: u64 },
    /// All stages shall load an adapter.
    AddAdapter {
        adapter: Digest,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// All stages shall drop an adapter.
    RemoveAdapter { adapter: Digest },
    /// The end; told when the task lets go of everything.
    Stop(oneshot::Sender<()>),
}

/// A generation for a pipeline.
pub(in super::super) struct Submitted {
    pub(in super::super) sequence: u64,
    pub(in super::super) answer: Answer,
    /// Tokens that another pipeline has given out.
    pub(in super::super) answered: Vec<u32>,
    /// Candidates for the next token, where they are known.
    pub(in super::super) allowed: Option<Vec<u8>>,
}

/// A plan of the core.
pub(in super::super) struct Planned {
    pub(in super::super) epoch: u32,
    pub(in super::super) seats: Vec<Seat>,
    pub(in super::super) pages: u32,
    pub(in super::super) reason: String,
    /// Adapters that its stages are sure to load.
    pub(in super::super) adapters: BTreeSet<Digest>,
}

/// A lane, as it shows itself.
pub(in super::super) struct Opened {
    pub(in super::super) epoch: u32,
    pub(in super::super) seat: u32,
    pub(in super::super) ticket: [u8; 32],
    /// Who signed the hello.
    pub(in super::super) worker: WorkerId,
    pub(in super::super) to: mpsc::Sender<Down>,
    /// Answered with where to say things; dropped where the lane is not taken.
    pub(in super::super) taken: oneshot::Sender<mpsc::Sender<Said>>,
}

/// A message of a stage, or the end of its lane.
pub(in super::super) struct Said {
    pub(in super::super) epoch: u32,
    pub(in super::super) seat: usize,
    pub(in super::super) message: Result<FromStage, End>,
}

/// Why a lane ended.
pub(in super::super) enum End {
    /// It closed or broke.
    Closed(String),
    /// What came cannot be read.
    Fault(String),
}
