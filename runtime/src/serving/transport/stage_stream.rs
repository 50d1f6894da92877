//! The stage stream: messages between a stage that serves and the coordinator, beside the session.

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

use crate::serving::stage::{ServedStage, StageEvent, StageEventKind, StageLoader};
use crate::{RuntimeError, session};

/// Messages that may wait for the network.
pub(crate) const MESSAGES_MAX: usize = 1_024;

/// An open stage stream.
pub(crate) struct StageStream {
    incoming: Streaming<Body>,
}

/// Where messages of the coordinator go.
#[derive(Clone)]
pub(crate) struct StageStreamEnd {
    pub(crate) incarnation: u64,
    pub(crate) engine: mpsc::Sender<StageEvent>,
    /// Back to the coordinator.
    pub(crate) up: mpsc::Sender<FromStage>,
    pub(crate) loader: StageLoader,
    pub(crate) stage: Arc<ServedStage>,
}

impl StageStream {
    /// Opens a stream: tells that the stage is loaded, then sends what comes out of `messages`.
    ///
    /// # Errors
    /// [`RuntimeError::Unreachable`] where the coordinator does not take it.
    pub(crate) async fn open(
        coordinator: &str,
        key: &Keypair,
        hello: &StageStreamHello,
        messages: mpsc::Receiver<FromStage>,
    ) -> Result<Self, RuntimeError> {
        // A connection of its own, so that no blob delays a token.
        let channel = session::connect(coordinator, key).await?;
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
            endpoint: format!("the coordinator's stage stream at {coordinator}"),
            why: ending(&status),
        };
        let incoming = answer.map_err(refused)?.into_inner();
        Ok(Self { incoming })
    }

    /// Hands messages of the coordinator to the engine, until the stream is closed.
    pub(crate) async fn run(mut self, end: StageStreamEnd) {
        loop {
            let body = match self.incoming.message().await {
                Ok(Some(body)) => body,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!("the stage stream broke: {}", status.message());
                    return;
                }
            };
            let goes_on = match canonical::decode::<ToStage>(&body.bytes) {
                Ok(ToStage::AddAdapter(adapter)) => {
                    tokio::spawn(end.clone().add(adapter));
                    true
                }
                Ok(ToStage::RemoveAdapter(adapter)) => {
                    end.tell_engine(StageEventKind::Adapter(adapter, None))
                        .await
                }
                Ok(message) => {
                    end.tell_engine(StageEventKind::Order(message, Instant::now()))
                        .await
                }
                Err(error) => {
                    let reason = format!("the coordinator says what cannot be read: {error}");
                    tracing::warn!("{reason}");
                    let _ = end.up.send(FromStage::Failed { reason }).await;
                    // The coordinator closes the stream once it has read why.
                    end.tell_engine(StageEventKind::Unbind).await
                }
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl StageStreamEnd {
    /// False where the engine is gone.
    async fn tell_engine(&self, kind: StageEventKind) -> bool {
        let incarnation = self.incarnation;
        self.engine
            .send(StageEvent { incarnation, kind })
            .await
            .is_ok()
    }

    /// Loads an adapter beside what the engine does.
    async fn add(self, adapter: Digest) {
        match self.loader.adapter(self.stage.clone(), adapter).await {
            Ok(loaded) => {
                self.tell_engine(StageEventKind::Adapter(adapter, Some(loaded)))
                    .await;
            }
            Err(error) => {
                let outcome = Err(error.to_string());
                let _ = self.up.send(FromStage::Adapter { adapter, outcome }).await;
            }
        }
    }
}
