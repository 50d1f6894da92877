//! What a worker serves: tensors from its neighbours, openings for checkers.

use std::pin::Pin;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};

use concord_proto::limits::{CHUNK_BYTES, FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};
use concord_proto::session::{AddressChallenge, OpenRequest};
use concord_proto::wire::worker_server::Worker;
use concord_proto::wire::{BlobAddress, Body, Chunk, Empty, Frame, FrameHeader};
use concord_proto::{Digest, Keypair, Origin, PortKind, canonical, merkle};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::serving::transport::StageHandle;
use crate::tensor_blob;
use crate::training::engine::{EngineEvent, EngineShared, ReceivedFrame};

/// The gRPC service of a worker.
pub(super) struct WorkerService {
    pub(super) key: Keypair,
    pub(super) shared: EngineShared,
    pub(super) events: SyncSender<EngineEvent>,
    pub(super) stage: StageHandle,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for WorkerService {
    type GetBlobStream = Chunks;

    async fn pass(&self, request: Request<Streaming<Frame>>) -> Result<Response<Empty>, Status> {
        self.stage.receive(request.into_inner()).await?;
        Ok(Response::new(Empty {}))
    }

    async fn push(&self, request: Request<Streaming<Frame>>) -> Result<Response<Empty>, Status> {
        let mut pieces = request.into_inner();
        let mut partial: Option<(FrameHeader, Vec<u8>)> = None;
        while let Some(piece) = pieces.message().await? {
            if !piece.header.is_empty() {
                if partial.is_some() {
                    return Err(Status::invalid_argument(
                        "a frame before the last one ended",
                    ));
                }
                partial = Some((checked_header(&piece.header)?, Vec::new()));
            }
            let Some((header, bytes)) = &mut partial else {
                return Err(Status::invalid_argument("data without a header"));
            };
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > header.bytes {
                return Err(Status::invalid_argument("more data than the header says"));
            }
            if bytes.len() as u64 == header.bytes {
                let (header, bytes) = partial.take().expect("just seen");
                let frame = checked_frame(header, &bytes)?;
                self.hand_over(EngineEvent::Frame(Box::new(frame)))?;
            }
        }
        Ok(Response::new(Empty {}))
    }

    async fn open(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let request: OpenRequest = canonical::decode(&request.into_inner().bytes)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let openings = self
            .shared
            .openings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let bytes = canonical::encode(&openings.open(&request));
        Ok(Response::new(Body { bytes }))
    }

    async fn prove(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let challenge: AddressChallenge = canonical::decode(&request.into_inner().bytes)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let proof = challenge
            .answer(&self.key)
            .ok_or_else(|| Status::not_found("another worker is here"))?;
        let bytes = canonical::encode(&proof);
        Ok(Response::new(Body { bytes }))
    }

    async fn get_blob(&self, request: Request<BlobAddress>) -> Result<Response<Chunks>, Status> {
        let digest = <[u8; 32]>::try_from(request.into_inner().digest)
            .map(Digest)
            .map_err(|_| Status::invalid_argument("an address has 32 bytes"))?;
        let blob = self
            .shared
            .openings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blob(&digest);
        let blob = blob.ok_or_else(|| Status::not_found("not held any more"))?;
        // To copy a tensor from a GPU waits for the work that the GPU does, which would block this
        // task.
        let bytes = tokio::task::spawn_blocking(move || blob.bytes())
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let chunks: Vec<Result<Chunk, Status>> = bytes
            .chunks(CHUNK_BYTES)
            .map(|data| {
                Ok(Chunk {
                    data: data.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

impl WorkerService {
    fn hand_over(&self, event: EngineEvent) -> Result<(), Status> {
        // The engine's channel holds more than all frames of two steps: full means flooded.
        self.events
            .try_send(event)
            .map_err(|_| Status::resource_exhausted("too many frames"))
    }
}

fn checked_header(bytes: &[u8]) -> Result<FrameHeader, Status> {
    const _: () = assert!(FRAME_BYTES_MAX > MESSAGE_BYTES_MAX as u64);
    let header: FrameHeader =
        canonical::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if header.bytes == 0 || header.bytes > FRAME_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "a frame of {} bytes",
            header.bytes
        )));
    }
    let FrameHeader {
        job,
        attempt,
        microbatch,
        port,
        origin,
        ..
    } = &header;
    let message = Origin::message(job, attempt, *microbatch, port);
    if origin.worker.verifies(&message, &origin.signature) {
        Ok(header)
    } else {
        Err(Status::unauthenticated(
            "the sender's signature does not fit the frame",
        ))
    }
}

fn checked_frame(header: FrameHeader, bytes: &[u8]) -> Result<ReceivedFrame, Status> {
    let decoded = tensor_blob::decode_all(bytes).map_err(Status::invalid_argument)?;
    let (digests, tensors): (Vec<Digest>, Vec<_>) = decoded.into_iter().unzip();
    let digest = match header.port.kind {
        PortKind::Partial { .. } => merkle::root(&digests),
        _ => *digests
            .first()
            .ok_or_else(|| Status::invalid_argument("a frame of nothing"))?,
    };
    if digest != header.port.digest {
        return Err(Status::data_loss(
            "the tensors are not what the header says",
        ));
    }
    let finite = tensors
        .iter()
        .all(|tensor| tensor.check_finite("frame").is_ok());
    if !finite {
        return Err(Status::invalid_argument(
            "a tensor has a NaN or an infinity",
        ));
    }
    Ok(ReceivedFrame {
        header,
        tensors: tensors.into_iter().map(Arc::new).collect(),
        digests,
    })
}
