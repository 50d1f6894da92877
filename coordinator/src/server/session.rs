//! One session: envelopes become messages of one key, messages become signed envelopes.

use std::time::Duration;

use concord_proto::session::{Hello, ToCoordinator, ToWorker};
use concord_proto::wire::{Envelope, ending};
use concord_proto::{PublicKey, Signed, SignedError, WorkerId};
use tokio::sync::{mpsc, watch};
use tonic::Streaming;

use super::access::PoolAccess;
use super::driver_event::{DriverEvent, SessionLink};
use crate::core::{CoreEvent, SessionId};

/// Messages that may wait for a worker to take them: some steps and all its audits.
pub(super) const MESSAGES_MAX: usize = 256;

/// A connection that says nothing is closed after this.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Reads a session of `peer` to its end. `messages` is the way to the other side.
pub(super) async fn read(
    (session, peer, access): (SessionId, PublicKey, watch::Receiver<PoolAccess>),
    mut envelopes: Streaming<Envelope>,
    messages: mpsc::Sender<ToWorker>,
    driver: mpsc::Sender<DriverEvent>,
) {
    let mut nonce = [0; 32];
    if let Err(why) = getrandom::fill(&mut nonce) {
        tracing::error!("no random numbers for a session: {why}");
        return;
    }
    let _ = messages.send(ToWorker::Challenge { nonce }).await;
    let first = tokio::time::timeout(HELLO_MAX, envelopes.message()).await;
    let first = first.ok().and_then(|first| read_hello(first.ok()??));
    // The key of the session is that of its connection: a Hello that somebody passes on is none.
    let is_its_own =
        |(worker, hello): &(WorkerId, Hello)| *worker == peer && hello.challenge == nonce;
    let Some((worker, hello)) = first.filter(is_its_own) else {
        // There is nothing to answer. No stranger may fill the log.
        tracing::debug!("a connection without a signed Hello is closed");
        return;
    };
    if !access.borrow().takes_member(hello.role, &worker) {
        let reason = format!(
            "it takes the keys alone that its operator has listed for this role, and {worker} is \
             not among them"
        );
        let _ = messages.send(ToWorker::Refused { reason }).await;
        return;
    }
    let (ready, start) = tokio::sync::oneshot::channel();
    let events = driver.clone();
    let reader = tokio::spawn(async move {
        // The driver knows the session before its first message.
        if start.await.is_ok() {
            read_messages(session, worker, envelopes, events).await;
        }
    });
    let link = SessionLink {
        member: (hello.role, worker),
        messages,
        reader: reader.abort_handle(),
    };
    let hello = Box::new(hello);
    let opened = DriverEvent::Opened {
        session,
        worker,
        hello,
        link,
    };
    if driver.send(opened).await.is_ok() {
        // The reader may have been ended already.
        let _ = ready.send(());
    }
}

fn read_hello(envelope: Envelope) -> Option<(WorkerId, Hello)> {
    let signed = Signed::try_from(envelope).ok()?;
    let ToCoordinator::Hello(hello) = signed.open().ok()? else {
        return None;
    };
    Some((signed.signer, hello))
}

async fn read_messages(
    session: SessionId,
    worker: WorkerId,
    mut envelopes: Streaming<Envelope>,
    driver: mpsc::Sender<DriverEvent>,
) {
    loop {
        let event = match envelopes.message().await {
            Ok(Some(envelope)) => match read_message(worker, envelope) {
                Ok(message) => CoreEvent::Message { session, message },
                Err(reason) => CoreEvent::Broken { session, reason },
            },
            Ok(None) => closed(session, "it left".to_string()),
            Err(status) => closed(session, ending(&status)),
        };
        let is_over = !matches!(event, CoreEvent::Message { .. });
        if driver.send(DriverEvent::Core(event)).await.is_err() || is_over {
            return;
        }
    }
}

fn closed(session: SessionId, reason: String) -> CoreEvent {
    CoreEvent::Closed { session, reason }
}

/// The message in an envelope.
///
/// # Errors
/// Why it is none of this worker.
fn read_message(worker: WorkerId, envelope: Envelope) -> Result<ToCoordinator, String> {
    let signed = Signed::try_from(envelope)?;
    if signed.signer != worker {
        let other = signed.signer.short();
        return Err(format!("a message in the name of {other}"));
    }
    let opened: Result<ToCoordinator, SignedError> = signed.open();
    opened.map_err(|error| format!("bytes that are no message of its key: {error}"))
}
