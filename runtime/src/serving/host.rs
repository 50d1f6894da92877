//! What a worker does about the orders of a coordinator that serves: loads layers, takes seats.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_proto::serving::{DeploymentId, StageAssignment, StageStreamHello};
use concord_proto::session::ToCoordinator;
use concord_proto::{Keypair, Layers};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::engine::{Taken, What};
use super::handle::{Current, StageHandle};
use super::lane::{Lane, LaneEnd, MESSAGES_MAX};
use super::load::{LoadedStage, Loader};
use super::memory;
use super::seat::Seat;
use super::sender::{self, OUTGOING_MAX, Outgoing, Sender};
use crate::RuntimeError;

/// A worker in a session with a coordinator that may serve. Once it is dropped, seat and pages are
/// no more; what is loaded stays.
pub(crate) struct Host {
    context: Context,
    serving: Option<(DeploymentId, JoinHandle<()>)>,
}

/// What it takes to serve.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: StageHandle,
    pub(crate) loader: Loader,
    pub(crate) key: Keypair,
    /// The coordinator's address.
    pub(crate) coordinator: String,
    /// To the coordinator, over the session.
    pub(crate) said: mpsc::Sender<ToCoordinator>,
}

impl Host {
    /// A worker without a seat.
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            serving: None,
        }
    }

    /// Takes what is assigned, in place of what was.
    pub(crate) fn serve(&mut self, assignment: StageAssignment) {
        self.stop();
        let id = assignment.deployment.id();
        let term = self.context.handle.next_term();
        let task = tokio::spawn(self.context.clone().serve(assignment, term));
        self.serving = Some((id, task));
    }

    /// Gives seat and layers back.
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
        self.context.handle.leave(None);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Context {
    async fn serve(self, assignment: StageAssignment, term: u64) {
        let (deployment, epoch) = (assignment.deployment.id(), assignment.epoch);
        if let Err(error) = self.clone().try_serve(assignment, term).await {
            self.handle.leave(Some(term));
            tracing::warn!("the seat cannot be taken: {error}");
            let failed = ToCoordinator::StageFailed {
                deployment,
                epoch,
                reason: error.to_string(),
                permanent: error.is_permanent(),
            };
            let _ = self.said.send(failed).await;
            if error.gpu_is_gone() {
                self.handle.gpu_is_gone(error).await;
            }
        }
    }

    async fn try_serve(self, assignment: StageAssignment, term: u64) -> Result<(), RuntimeError> {
        assignment.validate().map_err(RuntimeError::Unsupported)?;
        let deployment = &assignment.deployment;
        let own = assignment
            .stage
            .map(|seat| assignment.workers[seat as usize]);
        if own.is_some_and(|own| own != self.key.public()) {
            let why = "its plan has another worker in this seat".to_string();
            return Err(RuntimeError::Unsupported(why));
        }
        let (config, _) = self.loader.model(deployment).await?;
        let seat = assignment.layers();
        let wanted: Vec<Layers> = seat.into_iter().chain(assignment.standby.clone()).collect();
        self.loader.loaded.keep(deployment.id(), &wanted);
        let mut reserved = 0;
        let mut lane = None;
        if let Some(layers) = seat {
            let page = memory::page_bytes(&config, layers, deployment)?;
            reserved = page.saturating_mul(u64::from(assignment.pages));
            let stage = self.seat_stage(&assignment, layers, reserved).await?;
            let seat = Seat::new(&assignment, term, config.hidden);
            let seat = seat.expect("an assignment with layers has a seat");
            lane = Some(self.sit(&assignment, seat, stage).await?);
        }
        let standby = self.stand_by(&assignment, reserved);
        let Some(Open {
            lane,
            end,
            sender,
            channel,
            passes,
        }) = lane
        else {
            standby.await;
            return Ok(());
        };
        let lane = async {
            lane.run(end).await;
            self.handle.leave(Some(term));
        };
        let send = async {
            if let (Some(sender), Some(channel)) = (sender, channel) {
                sender.run(channel, passes).await;
            }
        };
        tokio::join!(lane, send, standby);
        Ok(())
    }

    /// The stage of a seat. Where memory is short, what stands by makes room.
    async fn seat_stage(
        &self,
        assignment: &StageAssignment,
        layers: Layers,
        reserved: u64,
    ) -> Result<Arc<LoadedStage>, RuntimeError> {
        let deployment = &assignment.deployment;
        let loaded = self.loader.stage(deployment, layers, reserved).await;
        match loaded {
            Err(error) if error.is_no_room() => {}
            loaded => return loaded,
        }
        self.loader.loaded.keep(deployment.id(), &[layers]);
        self.loader.stage(deployment, layers, reserved).await
    }

    /// Takes a seat and tells the coordinator.
    async fn sit(
        &self,
        assignment: &StageAssignment,
        seat: Seat,
        stage: Arc<LoadedStage>,
    ) -> Result<Open, RuntimeError> {
        let mut adapters = BTreeMap::new();
        for adapter in &assignment.adapters {
            let loaded = self.loader.adapter(stage.clone(), *adapter).await?;
            adapters.insert(*adapter, loaded);
        }
        let (up, messages) = mpsc::channel(MESSAGES_MAX);
        let (out, passes) = mpsc::channel(OUTGOING_MAX);
        let seat = Arc::new(seat);
        let mut channel = None;
        if let Some(endpoint) = &seat.next {
            channel = Some(sender::reach(endpoint).await?);
        }
        let sender = seat.next.clone().map(|endpoint| Sender {
            seat: seat.clone(),
            key: self.key.clone(),
            endpoint,
            up: up.clone(),
        });
        // From here on, whoever ends this task has a seat to give back.
        self.handle.sit(Current {
            seat: seat.clone(),
            up: up.downgrade(),
        });
        let (taken, is_taken) = oneshot::channel();
        let take = Taken {
            seat: seat.clone(),
            loaded: stage.clone(),
            adapters,
            up: up.clone(),
            next: seat.next.is_some().then_some(out),
            taken,
        };
        self.handle
            .send(seat.term, What::Take(Box::new(take)))
            .await?;
        let stopped = |_| RuntimeError::EngineStopped;
        is_taken.await.map_err(stopped)??;
        let hello = StageStreamHello {
            deployment: seat.id,
            pipeline: assignment.pipeline,
            epoch: seat.epoch,
            stage: assignment.stage.unwrap_or_default(),
            ticket: assignment.ticket,
        };
        let lane = Lane::open(&self.coordinator, &self.key, &hello, messages).await?;
        let end = LaneEnd {
            term: seat.term,
            engine: self.handle.events.clone(),
            up,
            loader: self.loader.clone(),
            stage,
        };
        let (layers, id) = (seat.layers, seat.id);
        tracing::info!("serves layers {}..{} of {id:?}", layers.start, layers.end);
        Ok(Open {
            lane,
            end,
            sender,
            channel,
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
                    let Layers { start, end } = *layers;
                    tracing::info!("does not stand by for layers {start}..{end}: {error}");
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
            let _ = self.said.send(message).await;
        }
    }
}

/// A seat that is taken.
struct Open {
    lane: Lane,
    end: LaneEnd,
    sender: Option<Sender>,
    channel: Option<tonic::transport::Channel>,
    passes: mpsc::Receiver<Outgoing>,
}
