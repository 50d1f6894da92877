//! The server over real sockets: sessions, blobs, jobs, events, and what it refuses.

mod access;
mod addresses;
mod blobs;
mod plans;

use concord_simulator as sim;

use std::path::Path;
use std::time::Duration;

use concord_coordinator::core::Config;
use concord_coordinator::server::access::PoolAccess;
use concord_coordinator::server::{RunningServer, ServerError, ServerOptions, start};
use concord_coordinator::store::StoreError;
use concord_proto::address::Address;
use concord_proto::client::{
    ClientRequest, ClientResponse, JobEvent, JobState, Submission, WatchRequest,
};
use concord_proto::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::session::{DeviceInfo, Hello, Role, ToCoordinator, ToWorker};
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::{BlobAddress, Body, Chunk, Envelope};
use concord_proto::{
    ARITHMETIC_VERSION, Digest, Domain, Keypair, PROTOCOL_VERSION, Signed, canonical, link,
};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

type Client = CoordinatorClient<Channel>;

/// A coordinator that is open, and whose admin has the key of [`connect`].
async fn serve(folder: &Path) -> RunningServer {
    serve_to(folder, PoolAccess::open([number_key(77).public()]).fixed()).await
}

fn number_key(number: u8) -> Keypair {
    Keypair::from_secret([number; 32])
}

async fn serve_to(folder: &Path, access: watch::Receiver<PoolAccess>) -> RunningServer {
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.to_path_buf(),
        config: Config::default(),
        serve: None,
        access,
        referee: None,
    };
    start(options).await.unwrap()
}

/// A client with a key of its own.
async fn connect(server: &RunningServer) -> Client {
    connect_as(server, 77).await
}

/// A client with the key of that number.
async fn connect_as(server: &RunningServer, number: u8) -> Client {
    let address = Address::parse(&server.url()).unwrap();
    let key = number_key(number);
    let channel = link::connect(&address, &key).await.unwrap();
    CoordinatorClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

async fn ask(client: &mut Client, request: &ClientRequest) -> ClientResponse {
    let bytes = canonical::encode(request);
    let body = client.call(Body { bytes }).await.unwrap().into_inner();
    canonical::decode(&body.bytes).unwrap()
}

async fn put(client: &mut Client, blob: &[u8]) -> Result<Digest, Status> {
    let pieces = blob.chunks(1_000).map(|piece| Chunk {
        data: piece.to_vec(),
    });
    let pieces: Vec<Chunk> = pieces.collect();
    let response = client.put_blob(tokio_stream::iter(pieces)).await?;
    let digest = response.into_inner().digest;
    Ok(Digest(digest.try_into().unwrap()))
}

async fn get(client: &mut Client, address: &Digest) -> Result<Vec<u8>, Status> {
    let digest = address.0.to_vec();
    let mut pieces = client.get_blob(BlobAddress { digest }).await?.into_inner();
    let mut blob = Vec::new();
    while let Some(piece) = pieces.next().await {
        blob.extend(piece?.data);
    }
    Ok(blob)
}

fn hello(role: Role) -> Hello {
    Hello {
        role,
        protocol: PROTOCOL_VERSION,
        arithmetic: ARITHMETIC_VERSION,
        device: DeviceInfo {
            name: "test".to_string(),
            macs_per_second: 1,
            memory_bytes: 1,
        },
        endpoint: "concord://nowhere".to_string(),
        held: None,
        challenge: [0; 32],
    }
}

struct Line {
    key: Keypair,
    up: mpsc::Sender<Envelope>,
    down: Streaming<Envelope>,
}

impl Line {
    /// Opens a session with the key of that number.
    async fn join(server: &RunningServer, number: u8, hello: Hello) -> Self {
        Self::open(&mut connect_as(server, number).await, number, hello).await
    }

    /// The same over a connection, whoever's it is.
    async fn open(client: &mut Client, number: u8, hello: Hello) -> Self {
        let key = Keypair::from_secret([number; 32]);
        let (up, waiting) = mpsc::channel(8);
        let down = client.session(ReceiverStream::new(waiting)).await.unwrap();
        let down = down.into_inner();
        let mut line = Self { key, up, down };
        let Some(ToWorker::Challenge { nonce }) = line.hear().await else {
            panic!("the first message is no challenge");
        };
        let challenge = if hello.challenge == [0; 32] {
            nonce
        } else {
            hello.challenge
        };
        let hello = Hello { challenge, ..hello };
        line.say(&ToCoordinator::Hello(hello)).await;
        line
    }

    /// Sends heartbeats until the session is over.
    fn stay(&self) {
        let (key, up) = (self.key.clone(), self.up.clone());
        tokio::spawn(async move {
            let beat = Signed::new(&key, &ToCoordinator::Heartbeat);
            while up.send(beat.clone().into()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
    }

    async fn say(&self, message: &ToCoordinator) {
        let signed = Signed::new(&self.key, message);
        self.up.send(signed.into()).await.unwrap();
    }

    /// The next message, or nothing at the end of the session. Skips [`ToWorker::Unreached`]:
    /// nobody listens at the address of a made-up worker.
    async fn hear(&mut self) -> Option<ToWorker> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.down.next());
            let envelope = next
                .await
                .expect("a message or an end")
                .and_then(Result::ok)?;
            let signed = Signed::try_from(envelope).unwrap();
            match signed.open().unwrap() {
                ToWorker::Unreached { .. } => {}
                message => return Some(message),
            }
        }
    }

    async fn is_over(&mut self) -> bool {
        self.hear().await.is_none()
    }
}

fn reason(message: Option<ToWorker>) -> String {
    match message {
        Some(ToWorker::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// The job of the simulation, with blobs that exist.
async fn submission(client: &mut Client) -> Submission {
    let mut new = sim::job::job(2, (1, 1), false);
    let tensor = put(client, b"a tensor").await.unwrap();
    let model = ModelManifest {
        config: "{}".to_string(),
        tensors: vec![ModelTensor {
            name: "w".to_string(),
            blob: tensor,
            bytes: 8,
        }],
    };
    new.data.chunks = vec![tensor];
    for entry in &mut new.initial.entries {
        (entry.value, entry.first_moment, entry.second_moment) = (tensor, tensor, tensor);
    }
    let spec = &mut new.submission.spec;
    spec.model = put(client, &canonical::encode(&model)).await.unwrap();
    spec.data = put(client, &canonical::encode(&new.data)).await.unwrap();
    spec.initial_state = put(client, &canonical::encode(&new.initial)).await.unwrap();
    new.submission
}

#[tokio::test]
async fn a_worker_is_welcomed_and_the_other_end_signs() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let mut line = Line::join(&server, 1, hello(Role::Worker)).await;
    let welcome = line.hear().await.unwrap();
    assert!(matches!(welcome, ToWorker::Welcome { coordinator, .. } if coordinator == server.key));
    line.say(&ToCoordinator::Heartbeat).await;
    let ClientResponse::Status(status) = ask(&mut client, &ClientRequest::Status).await else {
        panic!("no status");
    };
    assert_eq!(status.members.len(), 1);
    assert_eq!(status.members[0].id, line.key.public());
    line.say(&ToCoordinator::Drain).await;
    assert_eq!(line.hear().await, Some(ToWorker::Leave));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn other_versions_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut old = hello(Role::Worker);
    old.arithmetic = 77;
    let mut line = Line::join(&server, 1, old).await;
    let refused = reason(line.hear().await);
    assert!(refused.contains("arithmetic version 77"), "{refused}");
    assert!(line.is_over().await);
    let mut new = hello(Role::Worker);
    new.protocol = 99;
    let mut line = Line::join(&server, 1, new).await;
    let refused = reason(line.hear().await);
    assert!(refused.contains("protocol version 99"), "{refused}");
}

/// Anyone on the way can put bytes into a stream: they end the session, and convict nobody.
#[tokio::test]
async fn forged_and_malformed_envelopes_end_the_session_and_convict_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let forge: fn(Signed) -> Signed = |mut signed| {
        signed.signature[0] ^= 1;
        signed
    };
    let other: fn(Signed) -> Signed =
        |_| Signed::new(&Keypair::from_secret([99; 32]), &ToCoordinator::Heartbeat);
    let garbage: fn(Signed) -> Signed =
        |_| Signed::new(&Keypair::from_secret([3; 32]), &[255u8; 40]);
    for (number, make) in [(1, forge), (2, other), (3, garbage)] {
        let mut line = Line::join(&server, number, hello(Role::Worker)).await;
        line.hear().await.unwrap();
        let honest = Signed::new(&line.key, &ToCoordinator::Heartbeat);
        line.up.send(make(honest).into()).await.unwrap();
        assert!(line.is_over().await);
        let mut again = Line::join(&server, number, hello(Role::Worker)).await;
        let welcome = again.hear().await;
        assert!(
            matches!(welcome, Some(ToWorker::Welcome { .. })),
            "{welcome:?}"
        );
    }
    let ClientResponse::Status(status) = ask(&mut client, &ClientRequest::Status).await else {
        panic!("no status");
    };
    assert!(status.convicted.is_empty(), "{:?}", status.convicted);
}

#[tokio::test]
async fn a_connection_without_a_signed_hello_is_not_heard() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let (up, waiting) = mpsc::channel(8);
    let key = Keypair::from_secret([1; 32]);
    let mut hello = Signed::new(&key, &ToCoordinator::Hello(hello(Role::Worker)));
    hello.signature[0] ^= 1;
    up.send(hello.into()).await.unwrap();
    let down = client.session(ReceiverStream::new(waiting)).await.unwrap();
    let mut line = Line {
        key,
        up,
        down: down.into_inner(),
    };
    assert!(matches!(
        line.hear().await,
        Some(ToWorker::Challenge { .. })
    ));
    assert!(line.is_over().await);
    let ClientResponse::Status(status) = ask(&mut client, &ClientRequest::Status).await else {
        panic!("no status");
    };
    assert!(status.members.is_empty() && status.convicted.is_empty());
}

#[tokio::test]
async fn a_job_is_taken_on_once_and_its_events_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let submission = submission(&mut client).await;
    let id = submission.spec.id();
    let submit = ClientRequest::Submit(Box::new(submission.clone()));
    for _ in 0..2 {
        let response = ask(&mut client, &submit).await;
        assert_eq!(response, ClientResponse::Submitted(id));
    }
    let ClientResponse::Jobs(jobs) = ask(&mut client, &ClientRequest::Jobs).await else {
        panic!("no jobs");
    };
    assert_eq!(jobs.len(), 1);
    assert!(matches!(jobs[0].state, JobState::Waiting(_)));
    let watch = WatchRequest { job: id, from: 0 };
    let bytes = canonical::encode(&watch);
    let mut events = client.watch(Body { bytes }).await.unwrap().into_inner();
    let mut next = async || {
        let body = events.next().await?.unwrap();
        Some(canonical::decode::<JobEvent>(&body.bytes).unwrap())
    };
    assert!(matches!(next().await, Some(JobEvent::Waiting(_))));
    let bundle = ask(&mut client, &ClientRequest::Bundle(id)).await;
    assert!(matches!(bundle, ClientResponse::Refused(why) if why.contains("not done")));
    assert_eq!(
        ask(&mut client, &ClientRequest::Cancel(id)).await,
        ClientResponse::Cancelled
    );
    assert_eq!(next().await, Some(JobEvent::Cancelled));
    assert_eq!(next().await, None, "the end of a job ends the watching");
    server.shutdown().await.unwrap();
    // What was persisted is there again.
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let ClientResponse::Jobs(jobs) = ask(&mut client, &ClientRequest::Jobs).await else {
        panic!("no jobs");
    };
    assert_eq!((jobs[0].job, &jobs[0].state), (id, &JobState::Cancelled));
}

#[tokio::test]
async fn a_cancelled_job_is_taken_on_again_as_the_client_wants_it_now() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let mut submission = submission(&mut client).await;
    let id = submission.spec.id();
    for (round, name) in ["first", "second", "third"].into_iter().enumerate() {
        submission.options.name = name.to_string();
        let submit = ClientRequest::Submit(Box::new(submission.clone()));
        let response = ask(&mut client, &submit).await;
        assert_eq!(response, ClientResponse::Submitted(id));
        let ClientResponse::Jobs(jobs) = ask(&mut client, &ClientRequest::Jobs).await else {
            panic!("no jobs");
        };
        assert_eq!((jobs.len(), jobs[0].name.as_str()), (1, name));
        assert!(matches!(jobs[0].state, JobState::Waiting(_)), "{jobs:?}");
        let cancelled = ask(&mut client, &ClientRequest::Cancel(id)).await;
        assert_eq!(cancelled, ClientResponse::Cancelled);
        let bytes = canonical::encode(&WatchRequest { job: id, from: 0 });
        let events = client.watch(Body { bytes }).await.unwrap().into_inner();
        let events: Vec<_> = events.collect().await;
        let event = |body: Result<Body, _>| canonical::decode(&body.unwrap().bytes).unwrap();
        let events: Vec<JobEvent> = events.into_iter().map(event).collect();
        let ends = events.iter().filter(|event| **event == JobEvent::Cancelled);
        assert_eq!(ends.count(), round + 1, "{events:?}");
        assert_eq!(events.last(), Some(&JobEvent::Cancelled));
    }
    server.shutdown().await.unwrap();
    // What was wanted last is kept.
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let ClientResponse::Jobs(jobs) = ask(&mut client, &ClientRequest::Jobs).await else {
        panic!("no jobs");
    };
    assert_eq!(
        (&jobs[0].state, jobs[0].name.as_str()),
        (&JobState::Cancelled, "third")
    );
}

#[tokio::test]
async fn a_job_whose_blobs_are_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let mut submission = submission(&mut client).await;
    let missing = Digest::of(Domain::Blob, b"never put");
    submission.spec.data = missing;
    let submit = ClientRequest::Submit(Box::new(submission.clone()));
    let refused = ask(&mut client, &submit).await;
    assert!(matches!(refused, ClientResponse::Refused(why) if why.contains(&missing.to_string())));
    submission.spec.data = submission.spec.model;
    let submit = ClientRequest::Submit(Box::new(submission.clone()));
    let refused = ask(&mut client, &submit).await;
    assert!(matches!(refused, ClientResponse::Refused(why) if why.contains("no manifest")));
    submission.spec.steps = 0;
    let submit = ClientRequest::Submit(Box::new(submission));
    let refused = ask(&mut client, &submit).await;
    assert!(matches!(refused, ClientResponse::Refused(why) if why.contains("steps")));
    let bytes = vec![1, 2, 3];
    let garbage = client.call(Body { bytes }).await.unwrap_err();
    assert_eq!(garbage.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn port_and_folder_in_use_are_said_so() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = serve(folder.path()).await;
    let config = Config::default();
    let same_port = ServerOptions {
        listen: server.addr,
        data_dir: other.path().to_path_buf(),
        config,
        serve: None,
        access: PoolAccess::open([]).fixed(),
        referee: None,
    };
    let refused = start(same_port).await.err().expect("two on one port");
    assert!(matches!(refused, ServerError::PortInUse(_)), "{refused}");
    let same_folder = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.path().to_path_buf(),
        config,
        serve: None,
        access: PoolAccess::open([]).fixed(),
        referee: None,
    };
    let refused = start(same_folder).await.err().expect("two in one folder");
    assert!(
        matches!(refused, ServerError::Store(StoreError::Locked(_))),
        "{refused}"
    );
    let key = server.key;
    server.shutdown().await.unwrap();
    let again = serve(folder.path()).await;
    assert_eq!(again.key, key, "the key is kept");
}

/// A Hello that somebody recorded names an older challenge.
/// A coordinator that passes on what a worker says to another one gets no session in its name.
#[tokio::test]
async fn a_hello_over_the_connection_of_another_key_opens_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut between = connect_as(&server, 5).await;
    let mut line = Line::open(&mut between, 6, hello(Role::Worker)).await;
    assert!(line.is_over().await);
    let mut admin = connect(&server).await;
    let ClientResponse::Status(status) = ask(&mut admin, &ClientRequest::Status).await else {
        panic!("no status");
    };
    assert_eq!(status.members.len(), 0);
}

/// Somebody listens at the address of a coordinator: not a byte of a request gets there.
#[tokio::test]
async fn another_key_than_that_of_the_address_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let other = Keypair::from_secret([8; 32]).public();
    let address = Address::at(server.addr).of(other);
    let refused = link::connect(&address, &Keypair::from_secret([1; 32])).await;
    let (found, expected) = match refused {
        Err(link::LinkError::OtherKey { found, expected }) => (found, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!((found, expected), (server.key, other));
}

#[tokio::test]
async fn a_recorded_hello_opens_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let recorded = Hello {
        challenge: [7; 32],
        ..hello(Role::Worker)
    };
    let mut line = Line::join(&server, 9, recorded).await;
    assert!(line.is_over().await);
}
