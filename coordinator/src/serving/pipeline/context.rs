//! What a pipeline needs of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_scheduler::Settings;
use tokio::sync::mpsc;

use crate::core::ServingEvent;
use crate::serving::adapters::LoadedAdapters;
use crate::serving::receipts::SignerRequest;
use crate::serving::router::Router;
use crate::serving::status::ServingStatus;

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
pub(in crate::serving) struct PipelineContext {
    pub(in crate::serving) settings: Settings,
    /// When the service started: the scheduler's time counts from then.
    pub(in crate::serving) started: Instant,
    pub(in crate::serving) timeouts: ServingTimeouts,
    /// To the core.
    pub(in crate::serving) events: mpsc::Sender<ServingEvent>,
    pub(in crate::serving) signer: mpsc::Sender<SignerRequest>,
    pub(in crate::serving) router: Arc<Router>,
    pub(in crate::serving) adapters: Arc<LoadedAdapters>,
    pub(in crate::serving) status: Arc<ServingStatus>,
}

impl PipelineContext {
    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}
