//! Tensors on their way out: one stream to each other worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use concord_kernels::{KernelError, Tensor};
use concord_proto::canonical;
use concord_proto::limits::CHUNK_BYTES;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Frame, FrameHeader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{session, tensor_blob};

/// Frames that may wait for one worker: they are bounded by the microbatches in flight.
const WAITING_MAX: usize = 1_024;
/// Pieces that may wait inside one stream.
const PIECES_MAX: usize = 16;
/// Tries to reach a worker before it is given up.
const TRIES: u32 = 5;

/// A frame to be sent.
struct Outgoing {
    header: Box<FrameHeader>,
    tensors: Vec<Arc<Tensor>>,
}

/// Streams to other workers, by endpoint.
#[derive(Default)]
pub(super) struct Peers {
    streams: BTreeMap<String, mpsc::Sender<Outgoing>>,
}

impl Peers {
    /// Sends tensors to the worker at `endpoint`. A worker that cannot be reached is told of on
    /// `lost`, with the plan's epoch.
    pub(super) async fn send(
        &mut self,
        endpoint: String,
        header: Box<FrameHeader>,
        tensors: Vec<Arc<Tensor>>,
        lost: &mpsc::Sender<(u32, String)>,
    ) {
        let outgoing = Outgoing { header, tensors };
        let outgoing = match self.streams.get(&endpoint) {
            Some(stream) => match stream.send(outgoing).await {
                Ok(()) => return,
                Err(mpsc::error::SendError(outgoing)) => outgoing,
            },
            None => outgoing,
        };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        sender
            .try_send(outgoing)
            .unwrap_or_else(|_| unreachable!("a new channel has room"));
        tokio::spawn(feed(endpoint.clone(), receiver, lost.clone()));
        self.streams.insert(endpoint, sender);
    }

    /// Closes all streams.
    pub(super) fn close(&mut self) {
        self.streams.clear();
    }
}

/// Sends the frames for one worker until there are no more.
async fn feed(
    endpoint: String,
    mut frames: mpsc::Receiver<Outgoing>,
    lost: mpsc::Sender<(u32, String)>,
) {
    let mut failed = String::new();
    let mut pending = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        match stream(&endpoint, &mut frames, &mut pending).await {
            Ok(()) => return,
            Err(why) => failed = why,
        }
    }
    // The coordinator decides what becomes of a worker that its neighbour cannot reach.
    let epoch = pending.map_or(0, |frame| frame.header.epoch);
    let why = format!("cannot reach the worker at {endpoint}: {failed}");
    let _ = lost.send((epoch, why)).await;
}

/// One stream. The frame that was under way when it broke is left in `pending`.
async fn stream(
    endpoint: &str,
    frames: &mut mpsc::Receiver<Outgoing>,
    pending: &mut Option<Outgoing>,
) -> Result<(), String> {
    let channel = session::connect(endpoint)
        .await
        .map_err(|error| error.to_string())?;
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let mut client = WorkerClient::new(channel);
    let push =
        tokio::spawn(async move { client.push(ReceiverStream::new(receiver)).await.map(drop) });
    let broken = |push: tokio::task::JoinHandle<Result<(), tonic::Status>>| async {
        match push.await {
            Ok(Err(status)) => status.message().to_string(),
            _ => "it hung up".to_string(),
        }
    };
    loop {
        if pending.is_none() {
            *pending = frames.recv().await;
        }
        let Some(frame) = pending.as_ref() else { break };
        let sent = write(frame, &pieces)
            .await
            .map_err(|error| error.to_string())?;
        if !sent {
            drop(pieces);
            return Err(broken(push).await);
        }
        *pending = None;
    }
    drop(pieces);
    match push.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(status)) => Err(status.message().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes a frame; false where the stream is broken.
async fn write(frame: &Outgoing, pieces: &mpsc::Sender<Frame>) -> Result<bool, KernelError> {
    let header = Frame {
        header: canonical::encode(&*frame.header),
        data: Vec::new(),
    };
    if pieces.send(header).await.is_err() {
        return Ok(false);
    }
    for tensor in &frame.tensors {
        for chunk in tensor_blob::encode(tensor)?.chunks(CHUNK_BYTES) {
            let piece = Frame {
                header: Vec::new(),
                data: chunk.to_vec(),
            };
            if pieces.send(piece).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
