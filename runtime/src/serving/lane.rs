//! The lane to the coordinator: a stream of its own beside the session.

use std::sync::Arc;
use std::time::Instant;

use concord_proto::serving::{FromStage, StageStreamHello, ToStage};
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::{Body, ending};
use concord_proto::{Digest, Keypair, Signed, canonical, limits};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::engine::{StageEvent, What};
use super::load::{LoadedStage, Loader};
use crate::{RuntimeError, session};

/// Messages that may wait for the network.
pub(crate) const MESSAGES_MAX: usize = 1_024;

/// An open lane.
pub(crate) struct Lane {
    incoming: Streaming<Body>,
}

/// Where what the coordinator says goes.
#[derive(Clone)]
pub(crate) struct LaneEnd {
    pub(crate) term: u64,
    pub(crate) engine: mpsc::Sender<StageEvent>,
    /// Back to the coordinator.
    pub(crate) up: mpsc::Sender<FromStage>,
    pub(crate) loader: Loader,
    pub(crate) stage: Arc<LoadedStage>,
}

impl Lane {
    /// Opens a lane: says that the stage is loaded, and then what comes out of `messages`.
    ///
    /// # Errors
    /// [`RuntimeError::Unreachable`] where the coordinator does not take it.
    pub(crate) async fn open(
        coordinator: &str,
        key: &Keypair,
        hello: &StageStreamHello,
        messages: mpsc::Receiver<FromStage>,
    ) -> Result<Self, RuntimeError> {
        // A connection of its own: no blob on its way stands before a token.
        let channel = session::connect(coordinator).await?;
        let hello = Body {
            bytes: canonical::encode(&Signed::new(key, hello)),
        };
        let messages = ReceiverStream::new(messages).map(|message| Body {
            bytes: canonical::encode(&message),
        });
        let mut client = CoordinatorClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let answer = client.lane(tokio_stream::once(hello).chain(messages)).await;
        let refused = |status: tonic::Status| RuntimeError::Unreachable {
            endpoint: format!("the coordinator's lane at {coordinator}"),
            why: ending(&status),
        };
        let incoming = answer.map_err(refused)?.into_inner();
        Ok(Self { incoming })
    }

    /// Hands what the coordinator says to the engine, until the lane is closed.
    pub(crate) async fn run(mut self, end: LaneEnd) {
        loop {
            let body = match self.incoming.message().await {
                Ok(Some(body)) => body,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!("the lane broke: {}", status.message());
                    return;
                }
            };
            let goes_on = match canonical::decode::<ToStage>(&body.bytes) {
                Ok(ToStage::AddAdapter(adapter)) => {
                    tokio::spawn(end.clone().add(adapter));
                    true
                }
                Ok(ToStage::RemoveAdapter(adapter)) => {
                    end.engine(What::Adapter(adapter, None)).await
                }
                Ok(message) => end.engine(What::Lane(message, Instant::now())).await,
                Err(error) => {
                    let reason = format!("the coordinator says what cannot be read: {error}");
                    tracing::warn!("{reason}");
                    let _ = end.up.send(FromStage::Failed { reason }).await;
                    // The coordinator closes the lane once it has read why.
                    end.engine(What::Leave).await
                }
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl LaneEnd {
    /// False where the engine is gone.
    async fn engine(&self, what: What) -> bool {
        let term = self.term;
        self.engine.send(StageEvent { term, what }).await.is_ok()
    }

    /// Loads an adapter beside what the engine does.
    async fn add(self, adapter: Digest) {
        match self.loader.adapter(self.stage.clone(), adapter).await {
            Ok(loaded) => {
                self.engine(What::Adapter(adapter, Some(loaded))).await;
            }
            Err(error) => {
                let outcome = Err(error.to_string());
                let _ = self.up.send(FromStage::Adapter { adapter, outcome }).await;
            }
        }
    }
}
