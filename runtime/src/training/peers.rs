//! Tensors on their way out: one stream to each other worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use concord_kernels::{KernelError, Tensor};
use concord_proto::canonical;
use concord_proto::limits::CHUNK_BYTES;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Frame, FrameHeader, ending};
use concord_proto::{Keypair, PortKind};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::engine::{EngineEvent, SentMicrobatch};
use crate::{Backoff, RuntimeError, session, tensor_blob};

/// Frames that may wait for one worker: they are bounded by the microbatches in flight.
const WAITING_MAX: usize = 1_024;
/// Pieces that may wait inside one stream.
const PIECES_MAX: usize = 16;

/// A worker is reported if nobody answers at its address for so long.
const REACH_MAX: Duration = Duration::from_secs(4);
/// The first pause between two tries to reach a worker, and the longest.
const REACH_PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// How long after a stream broke that is reported. The streams of a worker that has ended break,
/// too: then the coordinator knows by now, and has ended the plan.
const BREAK_GRACE: Duration = Duration::from_secs(1);

/// A frame to be sent.
struct OutgoingFrame {
    header: Box<FrameHeader>,
    tensors: Vec<Arc<Tensor>>,
}

/// Tensors that do not get to the worker at `endpoint`, in the plan of this epoch.
#[derive(Debug)]
pub(crate) struct PeerLoss {
    pub(crate) epoch: u32,
    pub(crate) endpoint: String,
    pub(crate) why: String,
    /// Whether nobody answers at the address. Otherwise it took some frames, and what became of the
    /// last ones is not known.
    pub(crate) is_unreached: bool,
}

/// Streams to other workers, by endpoint.
pub(crate) struct Peers {
    key: Keypair,
    streams: BTreeMap<String, mpsc::Sender<OutgoingFrame>>,
    engine: SyncSender<EngineEvent>,
}

impl Peers {
    /// No streams yet. `key` is shown to the other workers; the engine is told which hidden states
    /// are on their way.
    pub(crate) fn new(key: Keypair, engine: SyncSender<EngineEvent>) -> Self {
        Self {
            key,
            streams: BTreeMap::new(),
            engine,
        }
    }

    /// Sends tensors to the worker at `endpoint`. Where they do not get there, `lost` is told.
    pub(crate) async fn send(
        &mut self,
        endpoint: String,
        header: Box<FrameHeader>,
        tensors: Vec<Arc<Tensor>>,
        lost: &mpsc::Sender<PeerLoss>,
    ) {
        let outgoing = OutgoingFrame { header, tensors };
        let outgoing = match self.streams.get(&endpoint) {
            Some(stream) => match stream.send(outgoing).await {
                Ok(()) => return,
                Err(mpsc::error::SendError(outgoing)) => outgoing,
            },
            None => outgoing,
        };
        let epoch = outgoing.header.epoch;
        let (sender, frames) = mpsc::channel(WAITING_MAX);
        sender
            .try_send(outgoing)
            .unwrap_or_else(|_| unreachable!("a new channel has room"));
        let stream = PeerStream {
            key: self.key.clone(),
            endpoint: endpoint.clone(),
            frames,
            epoch,
            engine: self.engine.clone(),
        };
        tokio::spawn(stream.feed(lost.clone()));
        self.streams.insert(endpoint, sender);
    }

    /// Closes all streams.
    pub(crate) fn close(&mut self) {
        self.streams.clear();
    }
}

/// The way to one worker.
struct PeerStream {
    key: Keypair,
    endpoint: String,
    frames: mpsc::Receiver<OutgoingFrame>,
    /// Of the last frame that was taken up, or of the first that waits.
    epoch: u32,
    engine: SyncSender<EngineEvent>,
}

impl PeerStream {
    /// Sends frames until there are no more, or until the worker is not reached.
    async fn feed(mut self, lost: mpsc::Sender<PeerLoss>) {
        let (why, is_unreached) = match self.reach().await {
            Err(why) => (why, true),
            Ok(channel) => match self.stream(channel).await {
                Ok(()) => return,
                Err(why) => {
                    tokio::time::sleep(BREAK_GRACE).await;
                    (why, false)
                }
            },
        };
        let loss = PeerLoss {
            epoch: self.epoch,
            endpoint: self.endpoint,
            why,
            is_unreached,
        };
        // Without a session there is nobody to tell.
        let _ = lost.send(loss).await;
    }

    /// A connection to the worker, which may be slow to answer.
    async fn reach(&self) -> Result<Channel, String> {
        let [first, longest] = REACH_PAUSE;
        let mut backoff = Backoff::new(first, longest);
        let until = Instant::now() + REACH_MAX;
        let mut why = format!("no answer for {REACH_MAX:?}");
        loop {
            match tokio::time::timeout_at(until, session::connect(&self.endpoint, &self.key)).await
            {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(RuntimeError::Unreachable { why: cause, .. })) => why = cause,
                // It is no address, and no further try would help.
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(why),
            }
            let next = Instant::now() + backoff.pause();
            if next >= until {
                return Err(why);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// One stream, until there are no more frames. There is no second one: nobody knows how much of
    /// a stream that breaks has arrived.
    async fn stream(&mut self, channel: Channel) -> Result<(), String> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let mut client = WorkerClient::new(channel);
        let push = async move { client.push(ReceiverStream::new(receiver)).await.map(drop) };
        let mut push = tokio::spawn(push);
        loop {
            let frame = tokio::select! {
                frame = self.frames.recv() => frame,
                // While nothing is sent: what was sent last may not have arrived.
                ended = &mut push => return Err(end(ended)),
            };
            let Some(frame) = frame else { break };
            self.epoch = frame.header.epoch;
            let sent = write(&frame, &pieces).await;
            if !sent.map_err(|error| error.to_string())? {
                return Err(end(push.await));
            }
            if let Some(event) = on_its_way(&frame.header) {
                // If the engine is gone, the worker ends.
                let _ = self.engine.send(event);
            }
        }
        drop(pieces);
        match push.await {
            Ok(Ok(())) => Ok(()),
            ended => Err(end(ended)),
        }
    }
}

/// What the engine is told once a frame is on its way: as long as hidden states wait here, few more
/// are computed of an evaluation, of which nothing comes back.
fn on_its_way(header: &FrameHeader) -> Option<EngineEvent> {
    let sent = SentMicrobatch {
        job: header.job,
        epoch: header.epoch,
        step: header.step,
        microbatch: header.microbatch,
    };
    matches!(header.port.kind, PortKind::Activation(_)).then_some(EngineEvent::Sent(sent))
}

/// How a stream ended that should go on.
fn end(ended: Result<Result<(), Status>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Err(status)) => ending(&status),
        Ok(Ok(())) => "it hung up".to_string(),
        Err(error) => error.to_string(),
    }
}

/// Writes a frame; false where the stream is broken.
async fn write(frame: &OutgoingFrame, pieces: &mpsc::Sender<Frame>) -> Result<bool, KernelError> {
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

#[cfg(test)]
mod tests {
    use concord_proto::AttemptId;
    use concord_proto::address::Address;
    use concord_proto::link::accept;
    use concord_proto::{Digest, Domain, JobId, Origin, Port};

    use tokio_stream::StreamExt;

    use super::*;

    fn header(epoch: u32) -> Box<FrameHeader> {
        let key = Keypair::from_secret([1; 32]);
        let (job, step, microbatch) = (JobId(Digest::default()), 0, 0);
        let digest = Digest::of(Domain::Blob, b"nothing");
        let port = Port {
            kind: PortKind::Activation(1.into()),
            digest,
        };
        let attempt = AttemptId {
            number: 0,
            entry: Digest::default(),
        };
        let message = Origin::message(&job, &attempt, microbatch, &port);
        Box::new(FrameHeader {
            job,
            attempt,
            epoch,
            step,
            microbatch,
            port,
            origin: Origin::sign(&key, &message),
            bytes: 1,
        })
    }

    async fn loss_at(endpoint: &str) -> PeerLoss {
        let (lost, mut losses) = mpsc::channel(4);
        let mut peers = Peers::new(
            Keypair::from_secret([2; 32]),
            std::sync::mpsc::sync_channel(4).0,
        );
        peers
            .send(endpoint.to_string(), header(7), Vec::new(), &lost)
            .await;
        let loss = tokio::time::timeout(3 * REACH_MAX, losses.recv()).await;
        loss.expect("a loss within seconds").expect("a loss")
    }

    /// The first frame was never sent: the loss is of its plan all the same.
    #[tokio::test]
    async fn nobody_at_an_address_is_told_with_the_epoch_of_the_plan() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Address::at(nobody.local_addr().unwrap()).to_string();
        drop(nobody);
        let loss = loss_at(&endpoint).await;
        assert!(loss.is_unreached && loss.epoch == 7, "{loss:?}");
        assert_eq!(loss.endpoint, endpoint);
        assert!(loss.why.contains("refused"), "{loss:?}");
    }

    #[tokio::test]
    async fn what_is_no_address_is_told_at_once() {
        for endpoint in [
            "ftp://x",
            "127.0.0.1:1",
            "http://127.0.0.1:1",
            "concord://10.0.0.1:1",
            "",
        ] {
            let start = Instant::now();
            let loss = loss_at(endpoint).await;
            assert!(loss.is_unreached && loss.epoch == 7, "{loss:?}");
            assert!(loss.why.contains("concord://"), "{loss:?}");
            assert!(start.elapsed() < REACH_MAX / 2, "{loss:?}");
        }
    }

    /// Somebody takes the link and hangs up: the stream broke, but the address is not wrong.
    #[tokio::test]
    async fn a_stream_that_breaks_is_told_although_no_frame_follows() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Address::at(listener.local_addr().unwrap()).to_string();
        let mut links = Box::pin(accept(listener, &Keypair::from_secret([3; 32])));
        tokio::spawn(async move {
            while let Some(link) = links.next().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(link);
            }
        });
        let loss = loss_at(&endpoint).await;
        assert!(!loss.is_unreached && loss.epoch == 7, "{loss:?}");
    }
}
