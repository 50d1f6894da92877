//! What a pipeline is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use concord_proto::serving::{Control, FromStage, ToStage};
use concord_proto::{Digest, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::answer::AnswerUnderWay;
use super::arrival::Arrival;
use crate::core::StageHolder;

/// What a pipeline is told.
pub(in crate::serving) enum PipelineInput {
    /// Answer a generation, or go on with one that another pipeline began.
    Submit {
        submission: Box<RoutedGeneration>,
        arrival: Arrival,
    },
    /// The client controls its answer.
    Control {
        sequence: u64,
        control: Control,
        /// The pipeline that has it.
        home: Arc<AtomicU32>,
    },
    /// The client does not want the answer any more.
    Cancel { sequence: u64, home: Arc<AtomicU32> },
    /// The core has a new plan.
    Planned(Box<PipelinePlan>),
    /// The core has no plan.
    Down { reason: String },
    /// A stage is loaded and has opened its stream.
    Stream(Box<StreamOpened>),
    /// The receipt signer wants the headers that a stage received for a sequence.
    Evidence { sequence: u64, stage: usize },
    /// The receipt signer has checked the claims of a sequence.
    Checked { sequence: u64 },
    /// All stages are to load an adapter.
    AddAdapter {
        adapter: Digest,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// All stages are to drop an adapter.
    RemoveAdapter { adapter: Digest },
    /// The end. The sender is told once the task has let go of everything.
    Stop(oneshot::Sender<()>),
}

/// A generation for a pipeline.
pub(in crate::serving) struct RoutedGeneration {
    pub(in crate::serving) sequence: u64,
    pub(in crate::serving) answer: AnswerUnderWay,
    /// Tokens that another pipeline has given out.
    pub(in crate::serving) answered: Vec<u32>,
    /// Candidates for the next token, where they are known.
    pub(in crate::serving) allowed: Option<Vec<u8>>,
}

/// A plan of the core for one pipeline.
pub(in crate::serving) struct PipelinePlan {
    pub(in crate::serving) epoch: u32,
    /// Who holds the stages, in order.
    pub(in crate::serving) holders: Vec<StageHolder>,
    pub(in crate::serving) pages: u32,
    pub(in crate::serving) reason: String,
    /// Adapters that its stages are sure to load.
    pub(in crate::serving) adapters: BTreeSet<Digest>,
}

/// To a stage; an error ends its stream.
pub(in crate::serving) type StageItem = Result<ToStage, Status>;

/// A stage stream, as its first message describes it.
pub(in crate::serving) struct StreamOpened {
    pub(in crate::serving) place: StagePlace,
    pub(in crate::serving) ticket: [u8; 32],
    /// Who signed the first message.
    pub(in crate::serving) worker: WorkerId,
    pub(in crate::serving) to: mpsc::Sender<StageItem>,
    /// Answered with where to send what the stage says; dropped where the stream is not accepted.
    pub(in crate::serving) accepted: oneshot::Sender<mpsc::Sender<StageMessage>>,
}

/// A stage of a plan.
#[derive(Clone, Copy, Debug)]
pub(in crate::serving) struct StagePlace {
    pub(in crate::serving) epoch: u32,
    /// Index of the stage in its pipeline.
    pub(in crate::serving) stage: usize,
}

/// A message of a stage, or the end of its stream.
pub(in crate::serving) struct StageMessage {
    pub(in crate::serving) place: StagePlace,
    pub(in crate::serving) message: Result<FromStage, StreamEnd>,
}

/// Why a stage stream ended.
pub(in crate::serving) enum StreamEnd {
    /// It closed or broke.
    Closed(String),
    /// What came cannot be read.
    Fault(String),
}

impl StreamOpened {
    /// Ends the stream, and says why.
    pub(in crate::serving) fn refuse(&self, why: &str) {
        let status = Status::failed_precondition(why.to_string());
        let _ = self.to.try_send(Err(status));
    }
}
