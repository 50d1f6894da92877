//! A coordinator that has blobs, and hands sessions and streams to the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use concord_proto::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX};
use concord_proto::link::accept;
use concord_proto::serving::{FromStage, StageStreamHello, ToStage};
use concord_proto::session::{Hello, ToCoordinator, ToWorker};
use concord_proto::wire::coordinator_server::{Coordinator, CoordinatorServer};
use concord_proto::wire::{BlobAddress, Body, Chunk, Envelope};
use concord_proto::{Digest, Domain, Keypair, PublicKey, Signed, canonical};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The coordinator's key.
pub fn key() -> Keypair {
    Keypair::from_secret([99; 32])
}

/// Blobs by address.
#[derive(Clone, Default)]
pub struct BlobMap(pub BTreeMap<Digest, Vec<u8>>);

impl BlobMap {
    pub fn put(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(Domain::Blob, &bytes);
        self.0.insert(digest, bytes);
        digest
    }
}

/// A worker that has said hello.
pub struct Member {
    pub id: PublicKey,
    pub hello: Hello,
    pub to: mpsc::Sender<ToWorker>,
    pub from: mpsc::Receiver<ToCoordinator>,
}

/// A stage stream that a worker has opened.
pub struct OpenStream {
    pub worker: PublicKey,
    pub hello: StageStreamHello,
    pub to: mpsc::Sender<Vec<u8>>,
    pub from: mpsc::Receiver<FromStage>,
}

impl OpenStream {
    pub fn send(&self, message: &ToStage) {
        let _ = self.to.try_send(canonical::encode(message));
    }
}

/// Messages that may wait in a channel of the tests.
const WAITING_MAX: usize = 1 << 14;

pub struct FakeCoordinator {
    pub address: SocketAddr,
    pub members: mpsc::Receiver<Member>,
    pub streams: mpsc::Receiver<OpenStream>,
}

impl FakeCoordinator {
    pub async fn start(blobs: BlobMap) -> Self {
        let (member, members) = mpsc::channel(WAITING_MAX);
        let (stream, streams) = mpsc::channel(WAITING_MAX);
        let service = Service {
            key: key(),
            blobs: Arc::new(blobs),
            member,
            stream,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = CoordinatorServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = accept(listener, &key());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        Self {
            address,
            members,
            streams,
        }
    }
}

struct Service {
    key: Keypair,
    blobs: Arc<BlobMap>,
    member: mpsc::Sender<Member>,
    stream: mpsc::Sender<OpenStream>,
}

#[tonic::async_trait]
impl Coordinator for Service {
    type SessionStream = Out<Envelope>;
    type WatchStream = Out<Body>;
    type GetBlobStream = Out<Chunk>;
    type LaneStream = Out<Body>;

    async fn session(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (out, stream) = mpsc::channel(64);
        let (key, member) = (self.key.clone(), self.member.clone());
        tokio::spawn(async move {
            let say = async |message: ToWorker| {
                let envelope = Envelope::from(Signed::new(&key, &message));
                out.send(Ok(envelope)).await.is_ok()
            };
            say(ToWorker::Challenge { nonce: [1; 32] }).await;
            let Some((id, ToCoordinator::Hello(hello))) = next(&mut incoming).await else {
                return;
            };
            let coordinator = key.public();
            let heartbeat_ms = 1_000;
            say(ToWorker::Welcome {
                coordinator,
                heartbeat_ms,
            })
            .await;
            let (to, mut orders) = mpsc::channel(WAITING_MAX);
            let (said, from) = mpsc::channel(WAITING_MAX);
            let _ = member.try_send(Member {
                id,
                hello,
                to,
                from,
            });
            loop {
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(order) => drop(say(order).await),
                        None => return,
                    },
                    message = next(&mut incoming) => match message {
                        Some((_, ToCoordinator::Heartbeat)) => {}
                        Some((_, message)) => drop(said.try_send(message)),
                        None => return,
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn call(&self, _: Request<Body>) -> Result<Response<Body>, Status> {
        Err(Status::unimplemented("call"))
    }

    async fn watch(&self, _: Request<Body>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }

    async fn get_blob(
        &self,
        request: Request<BlobAddress>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let digest = Digest(request.into_inner().digest.try_into().unwrap());
        let blob = self
            .blobs
            .0
            .get(&digest)
            .ok_or_else(|| Status::not_found("no blob"))?;
        let chunks = blob.chunks(CHUNK_BYTES);
        let chunks: Vec<_> = chunks
            .map(|data| {
                Ok(Chunk {
                    data: data.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn put_blob(
        &self,
        _: Request<Streaming<Chunk>>,
    ) -> Result<Response<BlobAddress>, Status> {
        Err(Status::unimplemented("put_blob"))
    }

    async fn lane(
        &self,
        request: Request<Streaming<Body>>,
    ) -> Result<Response<Self::LaneStream>, Status> {
        let mut incoming = request.into_inner();
        let (to, out) = mpsc::channel(WAITING_MAX);
        let stream = self.stream.clone();
        tokio::spawn(async move {
            let Ok(Some(first)) = incoming.message().await else {
                return;
            };
            let signed: Signed = canonical::decode(&first.bytes).unwrap();
            let (said, from) = mpsc::channel(WAITING_MAX);
            let _ = stream.try_send(OpenStream {
                worker: signed.signer,
                hello: signed.open().unwrap(),
                to,
                from,
            });
            while let Ok(Some(body)) = incoming.message().await {
                let message = canonical::decode(&body.bytes).unwrap();
                if said.try_send(message).is_err() {
                    return;
                }
            }
        });
        let out = ReceiverStream::new(out).map(|bytes| Ok(Body { bytes }));
        Ok(Response::new(Box::pin(out)))
    }
}

async fn next(incoming: &mut Streaming<Envelope>) -> Option<(PublicKey, ToCoordinator)> {
    let envelope = incoming.message().await.ok()??;
    let signed = Signed::try_from(envelope).unwrap();
    Some((signed.signer, signed.open().unwrap()))
}
