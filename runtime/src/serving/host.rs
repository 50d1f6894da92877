//! What a worker does about the orders of a coordinator that serves: it loads layers, and takes its
//! place in a pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_proto::serving::{DeploymentId, StageAssignment, StageStreamHello};
use concord_proto::session::ToCoordinator;
use concord_proto::{Keypair, Layers};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::stage::{
    BoundStage, OutgoingPass, ServedStage, StageBinding, StageEventKind, StageLoader, page_bytes,
};
use super::transport::{
    CurrentBinding, MESSAGES_MAX, OUTGOING_MAX, PassSender, StageHandle, StageStream,
    StageStreamEnd, reach,
};
use crate::{RuntimeError, spec};

/// A worker in a session with a coordinator that may serve. Once it is dropped, the stage is
/// unbound and its pages are gone; what is loaded stays.
pub(crate) struct Host {
    context: HostContext,
    serving: Option<(DeploymentId, JoinHandle<()>)>,
}

/// What it takes to serve.
#[derive(Clone)]
pub(crate) struct HostContext {
    pub(crate) handle: StageHandle,
    pub(crate) loader: StageLoader,
    pub(crate) key: Keypair,
    /// The coordinator's address.
    pub(crate) coordinator: String,
    /// To the coordinator, over the session.
    pub(crate) outbound: mpsc::Sender<ToCoordinator>,
}

impl Host {
    /// A worker that serves nothing.
    pub(crate) fn new(context: HostContext) -> Self {
        Self {
            context,
            serving: None,
        }
    }

    /// Serves what is assigned, in place of what was.
    pub(crate) fn serve(&mut self, assignment: StageAssignment) {
        self.stop();
        let id = assignment.deployment.id();
        let incarnation = self.context.handle.next_incarnation();
        let task = tokio::spawn(self.context.clone().serve(assignment, incarnation));
        self.serving = Some((id, task));
    }

    /// Unbinds the stage and drops its layers.
    pub(crate) fn unserve(&mut self, deployment: DeploymentId) {
        if self
            .serving
            .as_ref()
            .is_some_and(|(id, _)| *id == deployment)
        {
            self.stop();
            self.context.loader.loaded.keep(deployment, &[]);
        }
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.serving.take() {
            task.abort();
        }
        self.context.handle.unbind(None);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

impl HostContext {
    async fn serve(self, assignment: StageAssignment, incarnation: u64) {
        let (deployment, epoch) = (assignment.deployment.id(), assignment.epoch);
        if let Err(error) = self.clone().try_serve(assignment, incarnation).await {
            self.handle.unbind(Some(incarnation));
            tracing::warn!("the stage cannot be served: {error}");
            let failed = ToCoordinator::StageFailed {
                deployment,
                epoch,
                reason: error.to_string(),
                permanent: error.is_permanent(),
            };
            let _ = self.outbound.send(failed).await;
            if error.gpu_is_gone() {
                self.handle.gpu_is_gone(error).await;
            }
        }
    }

    async fn try_serve(
        self,
        assignment: StageAssignment,
        incarnation: u64,
    ) -> Result<(), RuntimeError> {
        assignment.validate().map_err(RuntimeError::Unsupported)?;
        let deployment = &assignment.deployment;
        let own = assignment
            .stage
            .map(|place| assignment.workers[place as usize]);
        if own.is_some_and(|own| own != self.key.public()) {
            let why = "its plan has another worker for this stage".to_string();
            return Err(RuntimeError::Unsupported(why));
        }
        let (config, _) = self.loader.model(deployment).await?;
        let layers = assignment.layers();
        let wanted: Vec<Layers> = layers
            .into_iter()
            .chain(assignment.standby.clone())
            .collect();
        self.loader.loaded.keep(deployment.id(), &wanted);
        let mut reserved = 0;
        let mut open = None;
        if let Some(layers) = layers {
            let page = page_bytes(&config, layers, deployment)?;
            reserved = page.saturating_mul(u64::from(assignment.pages));
            let stage = self.load_stage(&assignment, layers, reserved).await?;
            let span = spec::span(layers);
            let widths = [span.start, span.end].map(|cut| config.cut_widths(cut)[0]);
            let binding = StageBinding::new(&assignment, incarnation, widths);
            let binding = binding.expect("an assignment with layers has a binding");
            open = Some(self.bind(&assignment, binding, stage).await?);
        }
        let standby = self.stand_by(&assignment, reserved);
        let Some(OpenStage {
            stream,
            end,
            sender,
            passes,
        }) = open
        else {
            standby.await;
            return Ok(());
        };
        let receive = async {
            stream.run(end).await;
            self.handle.unbind(Some(incarnation));
        };
        let send = async {
            if let Some((sender, channel)) = sender {
                sender.run(channel, passes).await;
            }
        };
        tokio::join!(receive, send, standby);
        Ok(())
    }

    /// The stage that is assigned. If memory is short, layers that only stand by are dropped.
    async fn load_stage(
        &self,
        assignment: &StageAssignment,
        layers: Layers,
        reserved: u64,
    ) -> Result<Arc<ServedStage>, RuntimeError> {
        let deployment = &assignment.deployment;
        let loaded = self.loader.stage(deployment, layers, reserved).await;
        match loaded {
            Err(error) if error.is_no_room() => {}
            loaded => return loaded,
        }
        self.loader.loaded.keep(deployment.id(), &[layers]);
        self.loader.stage(deployment, layers, reserved).await
    }

    /// Binds a stage to its place in the pipeline and tells the coordinator.
    async fn bind(
        &self,
        assignment: &StageAssignment,
        binding: StageBinding,
        stage: Arc<ServedStage>,
    ) -> Result<OpenStage, RuntimeError> {
        let mut adapters = BTreeMap::new();
        for adapter in &assignment.adapters {
            let loaded = self.loader.adapter(stage.clone(), *adapter).await?;
            adapters.insert(*adapter, loaded);
        }
        let (up, messages) = mpsc::channel(MESSAGES_MAX);
        let (out, passes) = mpsc::channel(OUTGOING_MAX);
        let binding = Arc::new(binding);
        let mut sender = None;
        if let Some(endpoint) = binding.next.clone() {
            let channel = reach(&endpoint, &self.key).await?;
            let of_next = PassSender {
                binding: binding.clone(),
                key: self.key.clone(),
                endpoint,
                up: up.clone(),
            };
            sender = Some((of_next, channel));
        }
        // From here on the binding has to be undone, however this task ends.
        self.handle.bind(CurrentBinding {
            binding: binding.clone(),
            up: up.downgrade(),
        });
        let (is_bound, bound) = oneshot::channel();
        let bound_stage = BoundStage {
            binding: binding.clone(),
            loaded: stage.clone(),
            adapters,
            up: up.clone(),
            next: binding.next.is_some().then_some(out),
        };
        let event = StageEventKind::Bind(Box::new(bound_stage), is_bound);
        self.handle.send(binding.incarnation, event).await?;
        let stopped = |_| RuntimeError::EngineStopped;
        bound.await.map_err(stopped)??;
        let hello = StageStreamHello {
            deployment: binding.id,
            pipeline: assignment.pipeline,
            epoch: binding.epoch,
            stage: assignment.stage.unwrap_or_default(),
            ticket: assignment.ticket,
        };
        let stream = StageStream::open(&self.coordinator, &self.key, &hello, messages).await?;
        let end = StageStreamEnd {
            incarnation: binding.incarnation,
            engine: self.handle.events.clone(),
            up,
            loader: self.loader.clone(),
            stage,
        };
        let (layers, id) = (binding.layers, binding.id);
        tracing::info!("serves layers {layers} of {id:?}");
        Ok(OpenStage {
            stream,
            end,
            sender,
            passes,
        })
    }

    /// Loads what is to stand by, as far as memory goes, and says what is loaded.
    async fn stand_by(&self, assignment: &StageAssignment, reserved: u64) {
        let deployment = &assignment.deployment;
        let mut loaded = Vec::new();
        for layers in &assignment.standby {
            match self.loader.stage(deployment, *layers, reserved).await {
                Ok(_) => loaded.push(*layers),
                Err(error) => {
                    tracing::info!("does not stand by for layers {layers}: {error}");
                    if error.gpu_is_gone() {
                        return self.handle.gpu_is_gone(error).await;
                    }
                }
            }
        }
        if !assignment.standby.is_empty() {
            let message = ToCoordinator::StandsBy {
                deployment: deployment.id(),
                epoch: assignment.epoch,
                layers: loaded,
            };
            let _ = self.outbound.send(message).await;
        }
    }
}

/// A stage that is bound, with its streams.
struct OpenStage {
    stream: StageStream,
    end: StageStreamEnd,
    /// To the next stage, if there is one.
    sender: Option<(PassSender, Channel)>,
    passes: mpsc::Receiver<OutgoingPass>,
}
