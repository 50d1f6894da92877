//! Workers that stall: they delay the audits of their own leaves, and of nobody else's.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use concord_kernels::{Device, Tensor};
use concord_proto::address::Address;
use concord_proto::link::accept;
use concord_proto::session::{AuditOrder, OpenedMicrobatch, Opening};
use concord_proto::tree::Node;
use concord_proto::wire::worker_server::{Worker, WorkerServer};
use concord_proto::wire::{BlobAddress, Body, Chunk, Empty, Frame};
use concord_proto::{
    ClaimInput, Digest, Domain, GradientPart, JobId, JobSpec, Keypair, Layers, Leaf, LeafPhase,
    Port, PortKind, canonical, merkle,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::{AuditQueue, Auditor};
use crate::blobs::{BlobOptions, Blobs};
use crate::faults::Faults;
use crate::tensor_blob;
use crate::training::engine::tests::{config, job_spec};

/// Far less than a stalling worker is waited for.
const SOON: Duration = Duration::from_secs(10);

/// Where a worker stops answering.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stall {
    Never,
    Open,
    Blob,
    /// It gives all, and opens a sum with more values than its stage has.
    TooMany,
}

/// A worker that gives one tensor, or stalls.
struct OneTensor {
    stall: Stall,
    bytes: Vec<u8>,
    /// Told when it is asked for what it does not give.
    stalls: Arc<Notify>,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for OneTensor {
    type GetBlobStream = Chunks;

    async fn pass(&self, _: Request<Streaming<Frame>>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("it serves nothing"))
    }

    async fn push(&self, _: Request<Streaming<Frame>>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("it has no neighbours"))
    }

    async fn prove(&self, _: Request<Body>) -> Result<Response<Body>, Status> {
        Err(Status::unimplemented("nobody asks whose address it is"))
    }

    async fn open(&self, _: Request<Body>) -> Result<Response<Body>, Status> {
        if self.stall == Stall::Open {
            self.stalls.notify_one();
            std::future::pending::<()>().await;
        }
        let digest = Digest::of(Domain::Blob, &self.bytes);
        let opening = match self.stall {
            Stall::TooMany => Opening::Again {
                values: vec![digest; 100_000],
                microbatches: vec![OpenedMicrobatch {
                    activation: None,
                    gradient: None,
                }],
            },
            Stall::Never | Stall::Open | Stall::Blob => Opening::Inputs(vec![vec![digest]]),
        };
        let bytes = canonical::encode(&opening);
        Ok(Response::new(Body { bytes }))
    }

    async fn get_blob(&self, _: Request<BlobAddress>) -> Result<Response<Chunks>, Status> {
        if self.stall == Stall::Blob {
            self.stalls.notify_one();
            std::future::pending::<()>().await;
        }
        let data = self.bytes.clone();
        let chunks = tokio_stream::iter([Ok(Chunk { data })]);
        Ok(Response::new(Box::pin(chunks)))
    }
}

fn tensor() -> Vec<u8> {
    let tensor = Tensor::new(&[2], vec![1.0, 2.0]).unwrap();
    tensor_blob::encode(&tensor).unwrap()
}

/// A worker that listens. Gives its address, and what is told when it stalls.
async fn start(stall: Stall) -> (String, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Address::at(listener.local_addr().unwrap()).to_string();
    let stalls = Arc::new(Notify::new());
    let worker = OneTensor {
        stall,
        bytes: tensor(),
        stalls: stalls.clone(),
    };
    let server = Server::builder().add_service(WorkerServer::new(worker));
    tokio::spawn(server.serve_with_incoming(accept(listener, &Keypair::from_secret([1; 32]))));
    (endpoint, stalls)
}

fn order(worker: u8, endpoint: &str) -> AuditOrder {
    let digest = Digest::of(Domain::Blob, &tensor());
    let node = Node::leaf(0);
    let kind = PortKind::Partial {
        node,
        part: GradientPart::Own,
    };
    let port = Port {
        kind,
        digest: merkle::root(&[digest]),
    };
    AuditOrder {
        order: 0,
        spec: Digest::default(),
        job: JobId(Digest::default()),
        attempt: 0,
        epoch: 0,
        step: 0,
        worker: Keypair::from_secret([worker; 32]).public(),
        index: 0,
        endpoint: endpoint.to_string(),
        leaf: Leaf {
            phase: LeafPhase::Reduce,
            microbatch: 0,
            layers: Layers::new(0, 1),
            inputs: vec![ClaimInput { port, origin: None }],
            outputs: vec![port],
        },
    }
}

fn auditor() -> (Arc<Auditor>, Arc<JobSpec>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there: no coordinator is needed for what a worker gives.
    let coordinator = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let dir = folder.path().to_path_buf();
    let blobs = Blobs::new(coordinator, dir, &BlobOptions::default()).unwrap();
    let key = Keypair::from_secret([9; 32]);
    let (queue, faults) = (AuditQueue::new(0), Faults::default());
    let auditor = Auditor::new(Device::Reference, blobs, key, queue, faults);
    (Arc::new(auditor), Arc::new(job_spec(&config())), folder)
}

async fn others_are_not_delayed(stall: Stall) {
    let (auditor, spec, _folder) = auditor();
    let (stalling, stalls) = start(stall).await;
    let (honest, _) = start(Stall::Never).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (auditor, order) = (auditor.clone(), order(1, &stalling));
        let spec = spec.clone();
        waiting.spawn(async move { auditor.recomputer.fetch(order, &spec).await.map(drop) });
    }
    tokio::time::timeout(SOON, stalls.notified()).await.unwrap();
    for worker in [2, 3, 2] {
        let fetched = auditor.recomputer.fetch(order(worker, &honest), &spec);
        let fetched = tokio::time::timeout(SOON, fetched).await;
        assert!(fetched.expect("it is delayed").is_ok());
    }
    assert!(
        waiting.try_join_next().is_none(),
        "the stalling worker has answered"
    );
}

/// Nothing is fetched that has no place in the job: it would have to fit into memory first.
#[tokio::test]
async fn more_than_the_job_has_is_not_fetched() {
    let (auditor, spec, _folder) = auditor();
    let (endpoint, _) = start(Stall::TooMany).await;
    let why = auditor.recomputer.fetch(order(1, &endpoint), &spec).await;
    let why = why.map(drop).unwrap_err().to_string();
    assert!(why.contains("another number of values"), "{why}");
}

#[tokio::test]
async fn a_worker_that_opens_no_leaf_delays_nobody_else() {
    others_are_not_delayed(Stall::Open).await;
}

#[tokio::test]
async fn a_worker_that_gives_no_input_delays_nobody_else() {
    others_are_not_delayed(Stall::Blob).await;
}
