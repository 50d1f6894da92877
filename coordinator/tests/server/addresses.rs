//! Whether workers are at the addresses that they give, over real sockets.

use std::time::{Duration, Instant};

use concord_proto::address::Address;
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::link::accept;
use concord_proto::session::{AddressChallenge, Hello, Role, ToWorker};
use concord_proto::wire::worker_server::{Worker as WorkerService, WorkerServer};
use concord_proto::wire::{BlobAddress, Body, Chunk, Empty, Frame};
use concord_proto::{Keypair, Signed, canonical};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

use super::{Line, ask, connect, connect_as, hello, reason, serve};

/// A worker that can prove its key, and nothing else.
struct AtAddress(Keypair);

type Nothing<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WorkerService for AtAddress {
    type GetBlobStream = tokio_stream::Empty<Result<Chunk, Status>>;

    async fn push(&self, _: Request<Streaming<Frame>>) -> Nothing<Empty> {
        Err(Status::unimplemented("no tensors here"))
    }

    async fn pass(&self, _: Request<Streaming<Frame>>) -> Nothing<Empty> {
        Err(Status::unimplemented("no passes here"))
    }

    async fn open(&self, _: Request<Body>) -> Nothing<Body> {
        Err(Status::unimplemented("no leaves here"))
    }

    async fn get_blob(&self, _: Request<BlobAddress>) -> Nothing<Self::GetBlobStream> {
        Err(Status::unimplemented("no blobs here"))
    }

    async fn prove(&self, request: Request<Body>) -> Nothing<Body> {
        let challenge = canonical::decode::<AddressChallenge>(&request.into_inner().bytes);
        let proof = challenge.unwrap().answer(&self.0);
        let proof = proof.ok_or_else(|| Status::not_found("another worker is here"))?;
        let bytes = canonical::encode(&proof);
        Ok(Response::new(Body { bytes }))
    }
}

/// A server at a free port that proves the key of that number; gives its address.
async fn listen(number: u8) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::at(listener.local_addr().unwrap()).to_string();
    let key = Keypair::from_secret([number; 32]);
    let service = WorkerServer::new(AtAddress(key.clone()));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(accept(listener, &key)));
    address
}

fn at(endpoint: &str) -> Hello {
    Hello {
        endpoint: endpoint.to_string(),
        ..hello(Role::Worker)
    }
}

/// At the address that a worker gives there is nobody, a server that is no worker, one that hangs
/// up at once, one that never answers, or another worker. It is told the same in all cases, after
/// the same time, so that nobody can scan for open ports through the coordinator.
#[tokio::test]
async fn a_worker_learns_of_its_address_only_that_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Address::at(closed.local_addr().unwrap()).to_string();
    drop(closed);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = Address::at(silent.local_addr().unwrap()).to_string();
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude_at = Address::at(rude.local_addr().unwrap()).to_string();
    tokio::spawn(async move { while rude.accept().await.is_ok() {} });
    let server_at = Address::at(server.addr).to_string();
    let all = [nobody, server_at, rude_at, silent_at, listen(99).await];
    let mut tries = Vec::new();
    for (endpoint, number) in all.into_iter().zip(1..) {
        let mut client = connect_as(&server, number).await;
        tries.push(tokio::spawn(async move {
            let mut line = Line::open(&mut client, number, at(&endpoint)).await;
            let welcome = line.hear().await;
            assert!(matches!(welcome, Some(ToWorker::Welcome { .. })));
            line.stay();
            let since = Instant::now();
            let next = tokio::time::timeout(Duration::from_secs(10), line.down.next());
            let envelope = next.await.expect("a word in time").unwrap().unwrap();
            let message: ToWorker = Signed::try_from(envelope).unwrap().open().unwrap();
            (message, since.elapsed())
        }));
    }
    for tried in tries {
        let (message, took) = tried.await.unwrap();
        let ToWorker::Unreached { reason } = message else {
            panic!("{message:?}");
        };
        assert_eq!(
            reason,
            "the coordinator has tried: no Concord worker with this key answers there"
        );
        assert!(took > Duration::from_millis(3_500), "{took:?}");
    }
}

/// The first worker to give an address does not keep it from the one that is there.
#[tokio::test]
async fn an_address_that_somebody_squats_goes_to_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let address = listen(2).await;
    let mut squatter = Line::join(&server, 1, at(&address)).await;
    assert!(matches!(
        squatter.hear().await,
        Some(ToWorker::Welcome { .. })
    ));
    let mut owner = Line::join(&server, 2, at(&address)).await;
    assert!(matches!(owner.hear().await, Some(ToWorker::Welcome { .. })));
    for line in [&squatter, &owner] {
        line.stay();
    }
    let refused = reason(squatter.hear().await);
    assert!(refused.contains(&owner.key.public().short()), "{refused}");
    assert!(squatter.is_over().await);
    let ClientResponse::Status(status) = ask(&mut client, &ClientRequest::Status).await else {
        panic!("no status");
    };
    assert_eq!(status.members.len(), 1);
    assert_eq!(status.members[0].id, owner.key.public());
    assert!(!status.members[0].doing.contains("not reached"));
}
