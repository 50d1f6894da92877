//! What all tasks that serve share, and what the core tells them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use concord_proto::serving::{DeploymentId, PoolView, ServedModel, WorkerView};
use concord_proto::{Digest, Keypair};
use tokio::sync::{mpsc, oneshot};

use super::archive;
use super::notary::{self, Notary};
use super::pipeline;
use super::routes::Routes;
use crate::blobs::Blobs;
use crate::core::{ServingEffect, ServingEvent};
use crate::store::Store;

/// How long receipts may take to be written at a shutdown.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What a hub is made of.
pub(crate) struct Parts {
    pub(crate) served: ServedModel,
    pub(crate) key: Keypair,
    /// Answers to audit are drawn with it.
    pub(crate) nonce: [u8; 32],
    pub(crate) store: Arc<Store>,
    pub(crate) blobs: Arc<Blobs>,
    /// To the core.
    pub(crate) events: mpsc::Sender<ServingEvent>,
    /// A stage that does not answer for this long is lost.
    pub(crate) stall: Duration,
    /// A stage that is not loaded after this is given to another worker.
    pub(crate) load: Duration,
    /// Answers wait this long for a pipeline that nobody can hold.
    pub(crate) patience: Duration,
}

/// What all tasks that serve share.
pub(crate) struct Hub {
    pub(super) served: ServedModel,
    pub(super) id: DeploymentId,
    pub(super) store: Arc<Store>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) events: mpsc::Sender<ServingEvent>,
    pub(super) notary: mpsc::Sender<notary::Input>,
    pub(super) stall: Duration,
    pub(super) load: Duration,
    pub(super) patience: Duration,
    /// Receipts that could not be written.
    pub(super) receipts_lost: Arc<AtomicU64>,
    started: Instant,
    /// For sequences and orders.
    next: AtomicU64,
    /// Whether the members are about to be ended on purpose.
    parting: AtomicBool,
    state: Mutex<State>,
}

/// What changes. Never held over an await, nor while a pipeline's state is locked.
#[derive(Default)]
pub(super) struct State {
    pub(super) routes: Routes,
    pub(super) adapters: BTreeSet<Digest>,
    pub(super) failovers: u64,
    pub(super) last_resume: Option<f64>,
    words: String,
    workers: Vec<WorkerView>,
    audits: (u64, u64),
    stopped: bool,
}

impl Hub {
    /// Starts the task that writes receipts. Pipelines start as the core plans them.
    pub(crate) fn start(parts: Parts) -> Arc<Self> {
        let (notary, waiting) = mpsc::channel(notary::INPUTS_MAX);
        let receipts_lost = Arc::new(AtomicU64::new(0));
        let archive = archive::start(&parts, receipts_lost.clone());
        let hub = Arc::new(Self {
            id: parts.served.deployment.id(),
            served: parts.served,
            store: parts.store,
            blobs: parts.blobs,
            events: parts.events,
            notary,
            stall: parts.stall,
            patience: parts.patience,
            load: parts.load,
            receipts_lost,
            started: Instant::now(),
            next: AtomicU64::new(1),
            parting: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let weak = Arc::downgrade(&hub);
        let secrets = (parts.key, parts.nonce);
        let notary = Notary::new(&hub.served, secrets, weak, hub.events.clone(), archive);
        tokio::spawn(notary.run(waiting));
        hub
    }

    /// Microseconds since the start.
    pub(super) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// A number that is never given again.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what the core wants.
    pub(crate) async fn carry_out(self: &Arc<Self>, effect: ServingEffect) {
        match effect {
            ServingEffect::Planned {
                pipeline,
                epoch,
                seats,
                pages,
                reason,
            } => {
                let adapters = self.state().adapters.clone();
                let planned = pipeline::Planned {
                    epoch,
                    seats,
                    pages,
                    reason,
                    adapters,
                };
                let input = pipeline::Input::Planned(Box::new(planned));
                self.send(self.pipeline(pipeline), input).await;
            }
            ServingEffect::Down { pipeline, reason } => {
                let input = pipeline::Input::Down { reason };
                self.send(self.pipeline(pipeline), input).await;
            }
            ServingEffect::Pool {
                state: words,
                workers,
                audits,
            } => {
                let mut state = self.state();
                (state.words, state.workers, state.audits) = (words, workers, audits);
            }
        }
    }

    async fn send(&self, to: Option<mpsc::Sender<pipeline::Input>>, input: pipeline::Input) {
        if let Some(to) = to {
            // A pipeline that is gone has nothing to be told.
            let _ = to.send(input).await;
        }
    }

    /// The way to a pipeline; the task is started if there is none yet.
    fn pipeline(self: &Arc<Self>, index: u32) -> Option<mpsc::Sender<pipeline::Input>> {
        let mut state = self.state();
        if state.stopped {
            return None;
        }
        while state.routes.len() <= index as usize {
            let next = state.routes.len() as u32;
            let route = pipeline::start(self.clone(), next);
            state.routes.push(route);
        }
        state.routes.inputs(index)
    }

    /// Sends to the pipeline that has a sequence.
    pub(super) async fn send_to(&self, index: u32, input: pipeline::Input) {
        let to = self.state().routes.inputs(index);
        self.send(to, input).await;
    }

    /// Tells a pipeline without waiting; gives the input back where it cannot be told.
    pub(super) fn try_send_to(
        &self,
        index: u32,
        input: pipeline::Input,
    ) -> Result<(), pipeline::Input> {
        let Some(to) = self.state().routes.inputs(index) else {
            return Err(input);
        };
        to.try_send(input).map_err(|error| error.into_inner())
    }

    /// The state of the pool.
    pub(super) fn view(&self) -> PoolView {
        let state = self.state();
        let pipelines = state.routes.views();
        PoolView {
            ready: pipelines.iter().any(|pipeline| pipeline.running),
            state: state.words.clone(),
            workers: state.workers.clone(),
            pipelines,
            failovers: state.failovers,
            last_resume_seconds: state.last_resume,
            audits: state.audits,
            receipts_lost: self.receipts_lost.load(Ordering::Relaxed),
        }
    }

    /// What the deployment waits for, in words.
    pub(super) fn words(&self) -> String {
        let state = self.state();
        if state.words.is_empty() {
            return "it starts".to_string();
        }
        state.words.clone()
    }

    /// From here on stages that go are not missed.
    pub(crate) fn part(&self) {
        self.parting.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Relaxed)
    }

    /// Ends all tasks, once what is signed is written.
    pub(crate) async fn stop(&self) {
        let routes = {
            let mut state = self.state();
            state.stopped = true;
            state.routes.take()
        };
        for inputs in routes {
            let (done, ended) = oneshot::channel();
            let _ = inputs.send(pipeline::Input::Stop(done)).await;
            // It tells, or is gone.
            let _ = tokio::time::timeout(STOP_MAX, ended).await;
        }
        let (done, written) = oneshot::channel();
        let _ = self.notary.send(notary::Input::Stop(done)).await;
        if tokio::time::timeout(STOP_MAX, written).await.is_err() {
            tracing::error!("receipts of the last seconds could not be written in time");
        }
    }
}
