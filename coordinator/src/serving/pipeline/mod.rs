//! One pipeline: a task drives its scheduler, and owns the streams of its stages.
//!
//! [`task`] is that task. It turns inputs, messages of stages and time into calls of the parts, and
//! does what they decide; the parts know neither it nor each other: the plan in effect with its
//! passes, answers under way, claims that are awaited, adapters on their way, the time of an
//! outage.

mod adapters;
mod answers;
mod claims;
mod fault;
mod outage;
mod passes;
mod plan;
mod task;

use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_scheduler::{Scheduler, Settings};
use tokio::sync::mpsc;

use super::adapters::LoadedAdapters;
use super::receipts::SignerRequest;
use super::router::{PipelineState, Route, Router};
use super::status::ServingStatus;
use crate::core::ServingEvent;
use task::Pipeline;

/// Inputs that may wait for a pipeline: submissions, streams, controls of clients.
const INPUTS_MAX: usize = 2_048;

/// Messages of stages that may wait for a pipeline; beyond that, stages wait.
const MESSAGES_MAX: usize = 512;

/// How long a pipeline waits for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServingTimeouts {
    /// A stage that does not answer for this long is lost.
    pub(crate) stall: Duration,
    /// A stage that is not loaded after this is given to another worker.
    pub(crate) load: Duration,
    /// Answers wait this long for a pipeline that no worker can hold.
    pub(crate) patience: Duration,
}

/// What a pipeline needs of others.
#[derive(Clone)]
pub(super) struct PipelineContext {
    pub(super) settings: Settings,
    /// When the service started: the scheduler's time counts from then.
    pub(super) started: Instant,
    pub(super) timeouts: ServingTimeouts,
    /// To the core.
    pub(super) events: mpsc::Sender<ServingEvent>,
    pub(super) signer: mpsc::Sender<SignerRequest>,
    pub(super) router: Arc<Router>,
    pub(super) adapters: Arc<LoadedAdapters>,
    pub(super) status: Arc<ServingStatus>,
}

impl PipelineContext {
    /// Microseconds since the start.
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Starts the task of a pipeline.
pub(super) fn start(context: PipelineContext, index: u32) -> Route {
    let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
    let (messages, saying) = mpsc::channel(MESSAGES_MAX);
    let scheduler = Scheduler::new(context.settings);
    let state = Arc::new(PipelineState::new(scheduler));
    let pipeline = Pipeline::new(index, context, state.clone(), messages);
    tokio::spawn(pipeline.run(waiting, saying));
    Route { inputs, state }
}
