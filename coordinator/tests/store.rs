//! The store keeps what the core wants kept, as a model in memory does, and says why it cannot.

use concord_simulator as sim;

use concord_coordinator::blobs::BlobStore;
use concord_coordinator::core::{Change, Config, Core, CoreEvent, Persisted, Time};
use concord_coordinator::store::{Secrets, Store, StoreError};
use concord_proto::serving::BatchedReceipt;
use concord_proto::{Domain, JobId, Keypair, Signed, canonical};
use sim::job::{ALWAYS, job};
use sim::world::{Checker, SECOND, World};
use tokio::runtime::Runtime;

/// A run in which every kind of change is persisted.
fn eventful() -> World {
    let mut new = job(7, (2, 1), false);
    let options = &mut new.submission.options;
    options.audit_rate = ALWAYS / 2;
    options.recheck_rate = ALWAYS;
    let mut world = World::new(4, new);
    let first = world.join_worker(1, 0, None);
    world.join_worker(2, 0, None);
    world.join_worker(3, 0, None);
    world.join_checker(201, 0, Checker::Lazy);
    world.join_checker(202, 0, Checker::Honest);
    world.kill(first, SECOND / 5);
    world
}

fn text(kept: &Persisted) -> String {
    format!("{kept:#?}")
}

fn open(folder: &std::path::Path) -> (Runtime, Store, BlobStore) {
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(folder)).unwrap();
    let blobs = BlobStore::open(&folder.join("blobs")).unwrap();
    (runtime, store, blobs)
}

#[test]
fn it_finds_what_was_kept_after_every_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store, blobs) = open(folder.path());
    let mut world = eventful();
    let manifests = [
        canonical::encode(&world.new.data),
        canonical::encode(&world.new.initial),
    ];
    for manifest in manifests {
        runtime.block_on(blobs.put(manifest)).unwrap();
    }
    world.transactions = Some(Vec::new());
    world.replay_submission();
    world.run(900 * SECOND).expect("done");
    let transactions = world.transactions.take().unwrap();
    assert!(
        transactions.len() > 20,
        "{} are no test",
        transactions.len()
    );
    let mut model = sim::memory::Memory::default();
    for (index, changes) in transactions.into_iter().enumerate() {
        runtime.block_on(store.persist(&changes)).unwrap();
        changes.into_iter().for_each(|change| model.persist(change));
        if index % 5 == 0 {
            let found = runtime.block_on(store.load(&blobs)).unwrap();
            similar(&found, &model.persisted(&world.new), index);
        }
    }
    let found = runtime.block_on(store.load(&blobs)).unwrap();
    similar(&found, &model.persisted(&world.new), usize::MAX);
    let id = world.new.submission.spec.id();
    let bundle = runtime.block_on(store.bundle(&blobs, id)).unwrap().unwrap();
    assert_eq!(bundle, model.bundle(&world.new));
    let events = runtime.block_on(store.events(id, 3)).unwrap();
    assert_eq!(events, model.events[3..]);
    let stranger = JobId(concord_proto::Digest::of(Domain::Job, b"stranger"));
    let none = runtime.block_on(store.bundle(&blobs, stranger)).unwrap();
    assert!(none.unwrap_err().contains("no job"));
}

/// Whoever submits a job that is over again brings its data along: nothing is lost with a manifest
/// that cannot be read, but its proof.
#[test]
fn a_job_that_is_over_keeps_no_coordinator_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store, blobs) = open(folder.path());
    let mut world = eventful();
    world.transactions = Some(Vec::new());
    world.replay_submission();
    world.run(900 * SECOND).expect("done");
    let mut transactions = world.transactions.take().unwrap();
    let last = transactions.pop().unwrap();
    for changes in transactions {
        runtime.block_on(store.persist(&changes)).unwrap();
    }
    let why = runtime
        .block_on(store.load(&blobs))
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("a data manifest"),
        "the job is under way: {why}"
    );
    runtime.block_on(store.persist(&last)).unwrap();
    let found = runtime.block_on(store.load(&blobs)).unwrap();
    assert_eq!(found.jobs.len(), 1);
    let key = sim::world::key(255);
    let mut core = Core::restore(Config::default(), key, [9; 32], found);
    core.apply(Time(0), CoreEvent::Tick);
    assert!(!core.has_job());
}

/// The store leaves records out that no restart needs; all else is the same.
fn similar(found: &Persisted, model: &Persisted, index: usize) {
    let mut model = model.clone();
    for (model, found) in model.jobs.iter_mut().zip(&found.jobs) {
        let first = found.records.first().map_or(u32::MAX, |record| record.step);
        model.records.retain(|record| record.step >= first);
        let kept = model.checkpoints.iter().map(|state| state.step);
        let oldest = kept.filter(|&step| step > 0).min();
        assert!(
            oldest.is_none_or(|oldest| first < oldest),
            "a record too few at {index}"
        );
    }
    assert_eq!(text(found), text(&model), "after transaction {index}");
}

#[test]
fn a_transaction_is_kept_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store, blobs) = open(folder.path());
    let new = job(3, (1, 1), false);
    let id = new.submission.spec.id();
    let plan = |epoch| Change::Plan {
        plan: concord_proto::Plan {
            job: id,
            epoch,
            stages: Vec::new(),
            replicas: Vec::new(),
        },
    };
    let key = sim::world::key(1).public();
    let convict = Change::Convicted {
        culprit: key,
        offence: concord_proto::ledger::Offence::Replay,
    };
    runtime.block_on(store.persist(&[plan(1)])).unwrap();
    let twice = [convict.clone(), plan(1)];
    runtime.block_on(store.persist(&twice)).unwrap_err();
    let found = runtime.block_on(store.load(&blobs)).unwrap();
    assert!(found.convicted.is_empty(), "half a transaction");
    runtime
        .block_on(store.persist(&[convict, plan(2)]))
        .unwrap();
    let found = runtime.block_on(store.load(&blobs)).unwrap();
    assert_eq!(found.convicted.len(), 1);
}

#[test]
fn secrets_are_drawn_once() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |byte| Secrets {
        key: [byte; 32],
        nonce: [byte + 1; 32],
    };
    for byte in [1, 77] {
        let (runtime, store, _) = open(folder.path());
        let secrets = runtime.block_on(store.secrets(draw(byte))).unwrap();
        assert_eq!((secrets.key, secrets.nonce), ([1; 32], [2; 32]));
        runtime.block_on(store.close()).unwrap();
    }
}

#[test]
fn a_store_in_use_or_of_another_release_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store, _) = open(folder.path());
    let refused = runtime.block_on(Store::open(folder.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Locked(_)), "{refused}");
    runtime.block_on(store.close()).unwrap();
    // The version stands at byte 60 of a SQLite file.
    let path = folder.path().join("coordinator.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&41u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let refused = runtime.block_on(Store::open(folder.path())).err().unwrap();
    assert!(
        refused.to_string().contains("schema version 41"),
        "{refused}"
    );
    std::fs::write(&path, b"this is no database, whatever its name says").unwrap();
    let refused = runtime.block_on(Store::open(folder.path())).err().unwrap();
    assert!(matches!(refused, StoreError::Database { .. }), "{refused}");
}

/// Jobs of a release whose ledgers name no attempts are not read; a store without any is taken
/// over.
#[test]
fn a_store_with_jobs_from_before_secret_draws_is_refused_by_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.db");
    let make_old = || {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60..64].copy_from_slice(&4u32.to_be_bytes());
        std::fs::write(&path, &bytes).unwrap();
    };
    let (runtime, store, _) = open(folder.path());
    runtime.block_on(store.close()).unwrap();
    make_old();
    let (runtime, store, _) = open(folder.path());
    let new = job(3, (1, 1), false);
    let order = Change::Job {
        job: new.submission.spec.id(),
        number: 0,
        submission: Box::new(new.submission),
        submitters: Vec::new(),
    };
    runtime.block_on(store.persist(&[order])).unwrap();
    runtime.block_on(store.close()).unwrap();
    make_old();
    let refused = runtime.block_on(Store::open(folder.path())).err().unwrap();
    assert!(
        refused.to_string().contains("schema version 4"),
        "{refused}"
    );
}

#[test]
fn receipts_are_found_by_whole_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store, _) = open(folder.path());
    let key = Keypair::from_secret([1; 32]);
    let batch = BatchedReceipt::sign(&key, (0..5).map(|number| vec![number]).collect());
    let signed = |number: usize| batch[number].clone();
    let names = [
        "cmpl-ab",
        "cmpl-ab-2",
        "cmpl-ab-1",
        "cmpl-ab-x",
        "cmpl-ab-+3",
    ];
    let all = names.iter().zip(0..);
    let all: Vec<(&str, Vec<u8>)> = all
        .map(|(name, number)| (*name, canonical::encode(&signed(number))))
        .collect();
    runtime.block_on(store.keep_receipts(&all)).unwrap();
    let found = |id| runtime.block_on(store.receipts(id)).unwrap();
    assert_eq!(found("cmpl-ab"), [signed(0), signed(2), signed(1)]);
    assert_eq!(found("cmpl-ab-x"), [signed(3)]);
    for beginning in ["cmpl", "cmpl-a", ""] {
        assert_eq!(found(beginning), [], "{beginning}");
    }
    let earlier = canonical::encode(&Signed::new(&key, &7_u32));
    runtime
        .block_on(store.keep_receipts(&[("cmpl-old", earlier)]))
        .unwrap();
    let refused = runtime.block_on(store.receipts("cmpl-old")).unwrap_err();
    assert!(
        refused.to_string().contains("an earlier release"),
        "{refused}"
    );
}
