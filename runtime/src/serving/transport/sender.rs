//! Passes on their way to the next stage: one stream, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::serving::{FromStage, PassHeader, Passed};
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Frame, ending};
use concord_proto::{Keypair, Origin};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::frame;
use crate::serving::stage::{OutgoingPass, StageBinding};
use crate::{RuntimeError, session};

/// Passes that may wait for the network: more than are in flight.
pub(crate) const OUTGOING_MAX: usize = 16;
/// Tries to reach the next stage before the binding is given up.
const TRIES: u32 = 5;

/// Sends passes to the next stage.
pub(crate) struct PassSender {
    pub(crate) binding: Arc<StageBinding>,
    pub(crate) key: Keypair,
    pub(crate) endpoint: String,
    pub(crate) up: mpsc::Sender<FromStage>,
}

/// A channel to the next stage, which may be about to start.
///
/// # Errors
/// [`RuntimeError::Unreachable`] where nobody answers for a while.
pub(crate) async fn reach(endpoint: &str, key: &Keypair) -> Result<Channel, RuntimeError> {
    let mut tried = 0;
    loop {
        match session::connect(endpoint, key).await {
            Err(_) if tried < TRIES => tried += 1,
            reached => return reached,
        }
        tokio::time::sleep(Duration::from_millis(50 << tried)).await;
    }
}

impl PassSender {
    /// Sends passes until there are no more. Where the next stage takes no more, the coordinator
    /// is told.
    pub(crate) async fn run(self, channel: Channel, mut passes: mpsc::Receiver<OutgoingPass>) {
        // One piece at a time, so that the time of a pass on the wire can be told.
        let (pieces, receiver) = mpsc::channel(1);
        let mut client = WorkerClient::new(channel);
        let stream = async move { client.pass(ReceiverStream::new(receiver)).await.map(drop) };
        let mut stream = tokio::spawn(stream);
        loop {
            let ended = tokio::select! {
                ended = &mut stream => ended,
                outgoing = passes.recv() => {
                    let Some(outgoing) = outgoing else { return };
                    if let Some(passed) = self.send(&pieces, outgoing).await {
                        let _ = self.up.send(FromStage::Passed(passed)).await;
                        continue;
                    }
                    (&mut stream).await
                }
            };
            let why = match ended {
                Ok(Ok(())) => "it hung up".to_string(),
                Ok(Err(status)) => ending(&status),
                Err(error) => error.to_string(),
            };
            let reason = format!("the next stage, at {}, takes no pass: {why}", self.endpoint);
            tracing::warn!("{reason}");
            let _ = self.up.send(FromStage::Failed { reason }).await;
            return;
        }
    }

    /// Signs and sends a pass; none where the stream is broken.
    async fn send(&self, pieces: &mpsc::Sender<Frame>, outgoing: OutgoingPass) -> Option<Passed> {
        let OutgoingPass {
            runs,
            digests,
            rows,
            mut passed,
        } = outgoing;
        let (id, epoch, number) = (self.binding.id, self.binding.epoch, passed.pass);
        let message = PassHeader::message(&id, epoch, number, &runs, &digests);
        let header = PassHeader {
            deployment: id,
            epoch,
            pass: number,
            runs,
            rows: digests,
            origin: Origin::sign(&self.key, &message),
        };
        let started = Instant::now();
        for piece in frame::pieces(&header, &rows) {
            passed.bytes += (piece.header.len() + piece.data.len()) as u64;
            pieces.send(piece).await.ok()?;
        }
        // There is room again once the network has taken the last piece.
        drop(pieces.reserve().await.ok()?);
        passed.wire_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        Some(passed)
    }
}
