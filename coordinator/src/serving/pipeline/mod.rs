//! One pipeline: a task drives its scheduler, and owns the streams of its stages.
//!
//! [`task`] is that task. It turns inputs, messages of stages and time into calls of the parts, and
//! does what they decide; the parts know neither it nor each other: the plan in effect with its
//! passes, answers under way, claims that are awaited, adapters on their way, the time of an
//! outage.

mod adapters;
mod answers;
mod claims;
mod context;
mod fault;
mod outage;
mod passes;
mod plan;
mod task;

use std::sync::Arc;

use concord_scheduler::Scheduler;
use tokio::sync::mpsc;

use super::router::{PipelineState, Route};
use task::Pipeline;

pub(super) use context::PipelineContext;
pub(crate) use context::ServingTimeouts;

/// Inputs that may wait for a pipeline: submissions, streams, controls of clients.
const INPUTS_MAX: usize = 2_048;

/// Messages of stages that may wait for a pipeline; beyond that, stages wait.
const MESSAGES_MAX: usize = 512;

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
