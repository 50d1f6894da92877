//! What the store takes on disk: old states go, what is named stays, nothing is deleted in doubt.

use concord_simulator as sim;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use concord_coordinator::blobs::{BlobError, BlobStore, SPARED};
use concord_coordinator::core::Config;
use concord_coordinator::server::access::PoolAccess;
use concord_coordinator::server::{RunningServer, ServerOptions, start};
use concord_proto::address::Address;
use concord_proto::blob_store::{BlobLink, blob_file, link_file};
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::wire::Body;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::{Digest, Domain, JobSpec, Keypair, canonical, link};
use futures_util::StreamExt;
use sim::job::{ALWAYS, job};
use sim::swept::blobs_of;
use sim::world::{Checker, SECOND, World};

fn address(bytes: &[u8]) -> Digest {
    Digest::of(Domain::Blob, bytes)
}

async fn read(blobs: &BlobStore, address: &Digest) -> Result<Vec<u8>, BlobError> {
    let mut pieces = Box::pin(blobs.get(address).await?);
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend(piece?);
    }
    Ok(bytes)
}

/// Makes a file look as if it had been written two hours ago.
fn age(path: &Path) {
    let written = SystemTime::now() - 2 * SPARED;
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(written).unwrap();
}

#[test]
fn a_job_that_stores_every_state_keeps_a_few_of_them() {
    let mut new = job(50, (2, 1), false);
    let options = &mut new.submission.options;
    options.checkpoint_every = 1;
    options.audit_rate = ALWAYS / 4;
    options.checkers = 1;
    let state = blobs_of(&new.initial).len() as u64;
    let mut world = World::new(9, new);
    world.join_worker(1, 0, None);
    world.join_worker(2, 0, None);
    world.join_checker(201, 0, Checker::Honest);
    world.run(900 * SECOND).expect("done");
    let stored = world.swept.deleted + world.blobs.len() as u64;
    assert!(stored > 10 * state, "{stored} blobs are no test");
    // The last state, and perhaps one that the last one replaced on its way into the store.
    let left = world.blobs.len() as u64;
    assert!(left <= 2 * state, "{left} blobs of {stored} are left");
    let last = world.memory.checkpoints.values().next_back().unwrap();
    assert!(blobs_of(last).iter().all(|b| world.blobs.contains(b)));
}

#[tokio::test]
async fn a_linked_blob_is_read_where_it_lies_and_held_against_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(&folder.path().join("blobs")).unwrap();
    let file = folder.path().join("model");
    let elements = vec![7; 3 << 20];
    std::fs::write(&file, [b"--", &elements[..]].concat()).unwrap();
    let link = BlobLink::new(b"head".to_vec(), &file, 2, elements.len() as u64).unwrap();
    let whole = [b"head", &elements[..]].concat();
    let (right, wrong) = (address(&whole), address(b"another"));
    assert!(matches!(
        read(&blobs, &right).await,
        Err(BlobError::Missing(_))
    ));
    blobs.link(&right, &link).await.unwrap();
    blobs.link(&wrong, &link).await.unwrap();
    assert!(blobs.has(&right).await.unwrap());
    assert_eq!(read(&blobs, &right).await.unwrap(), whole);
    let damaged = read(&blobs, &wrong).await;
    assert!(matches!(damaged, Err(BlobError::Damaged(_))), "{damaged:?}");

    age(&file);
    assert_eq!(blobs.missing(&[right]).await.unwrap(), [right], "changed");
    assert_eq!(blobs.put(whole.clone()).await.unwrap(), right);
    assert_eq!(read(&blobs, &right).await.unwrap(), whole);
}

#[tokio::test]
async fn what_a_client_has_asked_about_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = BlobStore::open(folder.path()).unwrap();
    let asked = blobs.put(b"asked".to_vec()).await.unwrap();
    let other = blobs.put(b"other".to_vec()).await.unwrap();
    blobs.claim(&[asked]);
    assert!(!blobs.remove(&asked).unwrap());
    assert!(!blobs.remove_aged(&other, SPARED).unwrap(), "it is young");
    assert_eq!(blobs.aged(SPARED).unwrap(), []);
    age(&folder.path().join(blob_file(&other)));
    assert_eq!(blobs.aged(SPARED).unwrap(), [other]);
    assert!(blobs.remove_aged(&other, SPARED).unwrap());
    assert!(!blobs.remove(&other).unwrap(), "it is gone");
    assert!(blobs.has(&asked).await.unwrap() && !blobs.has(&other).await.unwrap());
    // What was not there when somebody asked is not kept in mind.
    blobs.claim(&[other]);
    blobs.disclaim(&[other]);
    blobs.put(b"other".to_vec()).await.unwrap();
    assert!(blobs.remove(&other).unwrap());
}

async fn serve(folder: &Path) -> RunningServer {
    let options = ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.to_path_buf(),
        config: Config::default(),
        serve: None,
        access: PoolAccess::open([]).fixed(),
        referee: None,
    };
    start(options).await.unwrap()
}

async fn ask(server: &RunningServer, request: &ClientRequest) -> ClientResponse {
    let bytes = canonical::encode(request);
    let address = Address::parse(&server.url()).unwrap();
    let channel = link::connect(&address, &Keypair::from_secret([9; 32])).await;
    let mut client = CoordinatorClient::new(channel.unwrap());
    let answer = client.call(Body { bytes }).await.unwrap().into_inner();
    canonical::decode(&answer.bytes).unwrap()
}

/// Submits the job of the simulation with blobs that exist; returns the address of a tensor of it,
/// and the job.
async fn submit(server: &RunningServer) -> (Digest, JobSpec) {
    let blobs = server.blobs();
    let mut new = sim::job::job(2, (1, 1), false);
    let tensor = blobs.put(b"a tensor".to_vec()).await.unwrap();
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
    spec.model = blobs.put(canonical::encode(&model)).await.unwrap();
    spec.data = blobs.put(canonical::encode(&new.data)).await.unwrap();
    spec.initial_state = blobs.put(canonical::encode(&new.initial)).await.unwrap();
    let spec = spec.clone();
    let answer = ask(server, &ClientRequest::Submit(Box::new(new.submission))).await;
    assert!(matches!(answer, ClientResponse::Submitted(_)), "{answer:?}");
    (tensor, spec)
}

/// The files of blobs in a store.
fn files(store: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let folders = entries(store).into_iter();
    folders.flat_map(|folder| entries(&folder)).collect()
}

async fn until_gone(blobs: &BlobStore, blob: &Digest) {
    let mut waited = Duration::ZERO;
    while blobs.has(blob).await.unwrap() {
        assert!(waited < Duration::from_secs(20), "it is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += Duration::from_millis(20);
    }
}

#[tokio::test]
async fn a_restart_deletes_what_no_job_names_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("blobs");
    let server = serve(folder.path()).await;
    let (tensor, _) = submit(&server).await;
    let of_job = files(&store).len();
    server.shutdown().await.unwrap();

    let blobs = BlobStore::open(&store).unwrap();
    let old = blobs.put(b"an old state".to_vec()).await.unwrap();
    let young = blobs.put(b"an upload that goes on".to_vec()).await.unwrap();
    std::fs::write(store.join("incoming/7"), b"half a blob").unwrap();
    let file = folder.path().join("model");
    std::fs::write(&file, b"elements").unwrap();
    let link = BlobLink::new(Vec::new(), &file, 0, 8).unwrap();
    let linked = address(b"elements");
    blobs.link(&linked, &link).await.unwrap();
    age(&store.join(link_file(&linked)));
    files(&store).iter().for_each(|file| age(file));
    let written = File::options()
        .append(true)
        .open(store.join(blob_file(&young)))
        .unwrap();
    written.set_modified(SystemTime::now()).unwrap();

    let server = serve(folder.path()).await;
    let blobs = server.blobs();
    until_gone(blobs, &old).await;
    until_gone(blobs, &linked).await;
    assert!(blobs.has(&young).await.unwrap());
    assert_eq!(read(blobs, &tensor).await.unwrap(), b"a tensor");
    assert_eq!(files(&store).len(), of_job + 1, "nothing else is gone");
    assert!(file.exists(), "what a link names is not the store's");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_is_deleted_while_it_is_unknown_what_a_job_needs() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("blobs");
    let server = serve(folder.path()).await;
    let (tensor, spec) = submit(&server).await;
    let old = server.blobs().put(b"an old state".to_vec()).await.unwrap();
    server.shutdown().await.unwrap();
    let manifest = store.join(blob_file(&spec.model));
    std::fs::write(&manifest, b"damaged").unwrap();
    files(&store).iter().for_each(|file| age(file));

    let server = serve(folder.path()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(server.blobs().has(&old).await.unwrap(), "it may be needed");
    assert!(server.blobs().has(&tensor).await.unwrap());
    // A job that is over needs no more than what its spec names.
    let answer = ask(&server, &ClientRequest::Cancel(spec.id())).await;
    assert_eq!(answer, ClientResponse::Cancelled);
    until_gone(server.blobs(), &old).await;
    assert!(manifest.exists(), "the proof of the job names it");
    server.shutdown().await.unwrap();

    // Nor does it hinder the next start.
    let blobs = BlobStore::open(&store).unwrap();
    let old = blobs.put(b"another old state".to_vec()).await.unwrap();
    age(&store.join(blob_file(&old)));
    let server = serve(folder.path()).await;
    until_gone(server.blobs(), &old).await;
    server.shutdown().await.unwrap();
}
