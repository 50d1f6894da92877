//! A stage stream: what coordinator and stage say to each other while the stage serves, from the
//! gRPC stream of a worker to its pipeline and back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::{DeploymentId, StageStreamHello, ToStage};
use concord_proto::wire::{Body, ending};
use concord_proto::{Signed, WorkerId, canonical};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::router::{
    PipelineInput, Router, StageItem, StageMessage, StagePlace, StreamEnd, StreamOpened,
};

/// Messages that may wait for a stage to take them: all passes that can be in flight and the claims
/// of all sequences.
const MESSAGES_MAX: usize = 4_096;

/// A stream that says nothing is closed after this.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Opens the streams of the stages of a deployment.
pub(crate) struct StageStreams {
    deployment: DeploymentId,
    router: Arc<Router>,
}

impl StageStreams {
    pub(super) fn new(deployment: DeploymentId, router: Arc<Router>) -> Self {
        Self { deployment, router }
    }

    /// Opens a stream of `peer`. The stream that is returned ends if the pipeline does not accept
    /// it.
    pub(crate) fn open(
        self,
        peer: WorkerId,
        bodies: Streaming<Body>,
    ) -> Pin<Box<dyn Stream<Item = Result<Body, Status>> + Send>> {
        let (to, messages) = mpsc::channel::<StageItem>(MESSAGES_MAX);
        tokio::spawn(self.read(peer, bodies, to));
        let encode = |message: ToStage| Body {
            bytes: canonical::encode(&message),
        };
        Box::pin(ReceiverStream::new(messages).map(move |message| message.map(encode)))
    }

    async fn read(self, peer: WorkerId, mut bodies: Streaming<Body>, to: mpsc::Sender<StageItem>) {
        let first = tokio::time::timeout(HELLO_MAX, bodies.message()).await;
        let body = first.ok().and_then(|first| first.ok()?);
        let hello = body.and_then(|body| read_hello(&body.bytes));
        let Some((worker, hello)) = hello.filter(|(worker, _)| *worker == peer) else {
            // It is not logged: no stranger may fill the log.
            let why = "a stage stream begins with a signed hello";
            let _ = to.send(Err(Status::unauthenticated(why))).await;
            return;
        };
        if hello.deployment != self.deployment {
            let why = "another deployment is served here";
            let _ = to.send(Err(Status::failed_precondition(why))).await;
            return;
        }
        let place = StagePlace {
            epoch: hello.epoch,
            stage: hello.stage as usize,
        };
        let (accepted, answer) = oneshot::channel();
        let opened = StreamOpened {
            place,
            ticket: hello.ticket,
            worker,
            to,
            accepted,
        };
        let input = PipelineInput::Stream(Box::new(opened));
        self.router.send(hello.pipeline, input).await;
        // If the pipeline does not accept the stream, it has told it why.
        let Ok(messages) = answer.await else {
            return;
        };
        drop(self);
        read_messages(bodies, place, messages).await;
    }
}

fn read_hello(bytes: &[u8]) -> Option<(WorkerId, StageStreamHello)> {
    let signed: Signed = canonical::decode(bytes).ok()?;
    Some((signed.signer, signed.open().ok()?))
}

async fn read_messages(
    mut bodies: Streaming<Body>,
    place: StagePlace,
    to: mpsc::Sender<StageMessage>,
) {
    loop {
        let message = match bodies.message().await {
            Ok(Some(body)) => canonical::decode(&body.bytes)
                .map_err(|why| StreamEnd::Fault(format!("it said what cannot be read: {why}"))),
            Ok(None) => Err(StreamEnd::Closed("it closed its stream".to_string())),
            Err(status) => {
                let why = ending(&status);
                Err(StreamEnd::Closed(format!("its stream ended: {why}")))
            }
        };
        let is_over = message.is_err();
        if to.send(StageMessage { place, message }).await.is_err() || is_over {
            return;
        }
    }
}
