//! A model that is served: the parts that serve it, put together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::serving::{BatchedReceipt, Generation, PoolView, ServedModel};
use concord_proto::{Digest, Keypair};
use concord_scheduler::Settings;
use tokio::sync::{mpsc, oneshot};

use super::adapters::{AdapterLoader, LoadedAdapters};
use super::error::SubmitError;
use super::pipeline::{self, PipelineContext};
use super::receipts::{ReceiptSecrets, Receipts};
use super::router::{PipelineInput, PipelinePlan, Router};
use super::stage_stream::StageStreams;
use super::status::ServingStatus;
use super::submission::{AnswerHandle, ControlLink, Submitter};
use crate::blobs::{BlobError, BlobStore};
use crate::core::{ServingEffect, ServingEvent};
use crate::store::{Store, StoreError};

pub(crate) use super::pipeline::ServingTimeouts;

/// How long a pipeline may take to end at a shutdown.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What a service is made of.
pub(crate) struct ServiceParts {
    pub(crate) served: ServedModel,
    pub(crate) key: Keypair,
    /// The nonce by which answers to audit are drawn.
    pub(crate) nonce: [u8; 32],
    pub(crate) store: Arc<Store>,
    pub(crate) blobs: Arc<BlobStore>,
    /// To the core.
    pub(crate) events: mpsc::Sender<ServingEvent>,
    pub(crate) timeouts: ServingTimeouts,
}

/// A model that is served: takes generations, shows the pool, gives out receipts. Clones share one
/// service.
///
/// A coordinator that was started with [`crate::server::ServerOptions::serve`] has one.
///
/// ```no_run
/// use concord_coordinator::serving::{ModelService, SubmitError};
/// use concord_proto::serving::{Generation, Update};
///
/// async fn answer(
///     service: &ModelService,
///     generation: Generation,
/// ) -> Result<Vec<u32>, SubmitError> {
///     let mut answer = service.submit(generation)?;
///     let mut tokens = Vec::new();
///     while let Some(update) = answer.updates.recv().await {
///         if let Update::Token(token) = update {
///             tokens.push(token.token);
///         }
///     }
///     Ok(tokens)
/// }
/// ```
#[derive(Clone)]
pub struct ModelService {
    parts: Arc<RunningParts>,
}

struct RunningParts {
    served: ServedModel,
    store: Arc<Store>,
    blobs: Arc<BlobStore>,
    router: Arc<Router>,
    status: Arc<ServingStatus>,
    receipts: Receipts,
    adapters: AdapterLoader,
    submitter: Submitter,
    /// What each pipeline is started with.
    pipelines: PipelineContext,
}

impl ModelService {
    /// Starts the tasks that sign and write receipts. Pipelines start as the core plans them.
    pub(crate) fn start(parts: ServiceParts) -> Self {
        let ServiceParts {
            served,
            key,
            nonce,
            store,
            blobs,
            events,
            timeouts,
        } = parts;
        let router = Arc::new(Router::new());
        let status = Arc::new(ServingStatus::default());
        let loaded = Arc::new(LoadedAdapters::default());
        let secrets = ReceiptSecrets { key, nonce };
        let receipts = Receipts::start(
            &served,
            secrets,
            store.clone(),
            blobs.clone(),
            events.clone(),
            router.clone(),
        );
        let deployment = &served.deployment;
        let submitter = Submitter {
            id: deployment.id(),
            deployment: deployment.clone(),
            adapters: loaded.clone(),
            status: status.clone(),
            link: ControlLink {
                router: router.clone(),
                signer: receipts.signer.clone(),
            },
        };
        let pipelines = PipelineContext {
            settings: Settings::new(deployment.vocab, deployment.positions),
            started: Instant::now(),
            timeouts,
            events: events.clone(),
            signer: receipts.signer.clone(),
            router: router.clone(),
            adapters: loaded.clone(),
            status: status.clone(),
        };
        let adapters = AdapterLoader {
            loaded,
            router: router.clone(),
            events,
        };
        let parts = RunningParts {
            served,
            store,
            blobs,
            router,
            status,
            receipts,
            adapters,
            submitter,
            pipelines,
        };
        Self {
            parts: Arc::new(parts),
        }
    }

    /// The model and how it is served.
    pub fn served(&self) -> &ServedModel {
        &self.parts.served
    }

    /// Takes a generation, or says at once why not. Call it from within a tokio runtime.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit(&self, generation: Generation) -> Result<AnswerHandle, SubmitError> {
        self.parts.submitter.submit(generation)
    }

    /// The state of the pool: its members, its pipelines, and what it waits for.
    pub fn view(&self) -> PoolView {
        let pipelines = self.parts.router.views();
        PoolView {
            ready: pipelines.iter().any(|pipeline| pipeline.running),
            pipelines,
            receipts_lost: self.parts.receipts.lost(),
            ..self.parts.status.view()
        }
    }

    /// The receipts whose name is `id`, or `id` and the index of a choice after a "-".
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self, id: &str) -> Result<Vec<BatchedReceipt>, StoreError> {
        self.parts.store.receipts(id).await
    }

    /// Puts a blob into the store: a manifest, a tensor, a tokenizer, an adapter.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn put_blob(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        self.parts.blobs.put(bytes).await
    }

    /// Has all stages load an adapter whose blobs are in the store.
    ///
    /// # Errors
    /// A sentence: a stage cannot load it, or does not in time.
    pub async fn add_adapter(&self, adapter: Digest) -> Result<(), String> {
        self.parts.adapters.add(adapter).await
    }

    /// Has all stages drop an adapter. Answers that use it and are not done fail.
    ///
    /// # Errors
    /// A sentence: there is no such adapter.
    pub async fn remove_adapter(&self, adapter: Digest) -> Result<(), String> {
        self.parts.adapters.remove(adapter).await
    }

    /// What takes in the streams of stages.
    pub(crate) fn stage_streams(&self) -> StageStreams {
        StageStreams::new(self.parts.submitter.id, self.parts.router.clone())
    }

    /// Carries out what the core wants.
    pub(crate) async fn carry_out(&self, effect: ServingEffect) {
        match effect {
            ServingEffect::Planned {
                pipeline,
                epoch,
                holders,
                pages,
                reason,
            } => {
                let plan = PipelinePlan {
                    epoch,
                    holders,
                    pages,
                    reason,
                    adapters: self.parts.pipelines.adapters.all(),
                };
                let input = PipelineInput::Planned(Box::new(plan));
                self.tell(pipeline, input).await;
            }
            ServingEffect::Down { pipeline, reason } => {
                self.tell(pipeline, PipelineInput::Down { reason }).await;
            }
            ServingEffect::Pool {
                state,
                workers,
                audits,
            } => self.parts.status.report(state, workers, audits),
        }
    }

    /// Tells a pipeline, which is started if there is none yet.
    async fn tell(&self, index: u32, input: PipelineInput) {
        let context = &self.parts.pipelines;
        let start = |index| pipeline::start(context.clone(), index);
        if let Some(to) = self.parts.router.started(index, start) {
            // A pipeline that is gone has nothing to be told.
            let _ = to.send(input).await;
        }
    }

    /// From here on stages are expected to end.
    pub(crate) fn part(&self) {
        self.parts.status.part();
    }

    /// Ends all tasks, once what is signed is written.
    pub(crate) async fn stop(&self) {
        for inputs in self.parts.router.stop() {
            let (done, ended) = oneshot::channel();
            let _ = inputs.send(PipelineInput::Stop(done)).await;
            // It answers, or is gone.
            let _ = tokio::time::timeout(STOP_MAX, ended).await;
        }
        self.parts.receipts.stop().await;
    }
}
