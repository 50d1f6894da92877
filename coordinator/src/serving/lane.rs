//! A lane: from the stream of a worker to its pipeline, and back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::{FromStage, StageStreamHello, ToStage};
use concord_proto::wire::{Body, ending};
use concord_proto::{Signed, WorkerId, canonical};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::hub::Hub;
use super::pipeline::{End, Input, Opened, Said};

/// Messages that may wait for a stage to take them: all passes that can be in flight and the claims
/// of all sequences.
const MESSAGES_MAX: usize = 4_096;

/// A lane that says nothing is closed after this.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// To a stage; an error ends the lane.
pub(crate) type Down = Result<ToStage, Status>;

/// Opens a lane. The stream that comes back ends where the pipeline does not take the lane.
pub(crate) fn open(
    hub: Arc<Hub>,
    bodies: Streaming<Body>,
) -> Pin<Box<dyn Stream<Item = Result<Body, Status>> + Send>> {
    let (to, messages) = mpsc::channel::<Down>(MESSAGES_MAX);
    tokio::spawn(read(hub, bodies, to));
    let encode = |message: ToStage| Body {
        bytes: canonical::encode(&message),
    };
    Box::pin(ReceiverStream::new(messages).map(move |message| message.map(encode)))
}

async fn read(hub: Arc<Hub>, mut bodies: Streaming<Body>, to: mpsc::Sender<Down>) {
    let first = tokio::time::timeout(HELLO_MAX, bodies.message()).await;
    let body = first.ok().and_then(|first| first.ok()?);
    let Some((worker, hello)) = body.and_then(|body| read_hello(&body.bytes)) else {
        // Nobody signed this: there is nobody to blame. No stranger fills the log.
        let why = "a lane begins with a signed StageStreamHello";
        let _ = to.send(Err(Status::unauthenticated(why))).await;
        return;
    };
    if hello.deployment != hub.id {
        let why = "another deployment is served here";
        let _ = to.send(Err(Status::failed_precondition(why))).await;
        return;
    }
    let (taken, answer) = oneshot::channel();
    let opened = Opened {
        epoch: hello.epoch,
        seat: hello.stage,
        ticket: hello.ticket,
        worker,
        to,
        taken,
    };
    hub.send_to(hello.pipeline, Input::Lane(Box::new(opened)))
        .await;
    // A lane that is not taken has been told why by the pipeline.
    let Ok(said) = answer.await else {
        return;
    };
    drop(hub);
    let at = (hello.epoch, hello.stage as usize);
    read_messages(bodies, at, said).await;
}

fn read_hello(bytes: &[u8]) -> Option<(WorkerId, StageStreamHello)> {
    let signed: Signed = canonical::decode(bytes).ok()?;
    Some((signed.signer, signed.open().ok()?))
}

async fn read_messages(
    mut bodies: Streaming<Body>,
    (epoch, seat): (u32, usize),
    to: mpsc::Sender<Said>,
) {
    loop {
        let message: Result<FromStage, End> = match bodies.message().await {
            Ok(Some(body)) => canonical::decode(&body.bytes)
                .map_err(|why| End::Fault(format!("it said what cannot be read: {why}"))),
            Ok(None) => Err(End::Closed("it closed its lane".to_string())),
            Err(status) => {
                let why = ending(&status);
                Err(End::Closed(format!("its lane ended: {why}")))
            }
        };
        let is_over = message.is_err();
        let said = Said {
            epoch,
            seat,
            message,
        };
        if to.send(said).await.is_err() || is_over {
            return;
        }
    }
}
