//! What a job takes on disk: old states are deleted, blobs on one machine are not copied, and
//! nobody misses what is deleted.

mod pool;

use std::collections::BTreeSet;
use std::path::Path;

use pool::{Pool, outcome, run, shared, small_job};

/// The names of the blobs in a store, and of what is linked there.
fn blobs(store: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in std::fs::read_dir(store).into_iter().flatten().flatten() {
        let files = std::fs::read_dir(folder.path()).into_iter().flatten();
        let names_of = files.flatten().map(|file| file.file_name());
        names.extend(names_of.filter_map(|name| name.into_string().ok()));
    }
    names.retain(|name| name.len() == 64);
    names
}

/// Bytes of the files below a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => bytes(&path),
            path => path.metadata().map_or(0, |found| found.len()),
        })
        .sum()
}

/// Runs a job that stores every state, with the coordinator killed after a step where one is given;
/// returns the blobs at the start, those ever seen, and those at the end.
fn stored(shared: &Path, mut kill_at: Option<u64>) -> [BTreeSet<String>; 3] {
    let is_undisturbed = kill_at.is_none();
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1"]);
    pool.join("checker", &["--threads", "1"]);
    let store = pool.dir.path().join("coordinator/blobs");
    let job = small_job(pool.dir.path(), shared, 50, 11, "save_steps: 1");
    let rates = ["--audit-rate", "0.5"];
    let train = pool.train(&job, &[&["--min-checkers", "1"], &rates[..]].concat());
    train.until(|object| object["event"] == "step");
    let first = blobs(&store);
    let mut seen = first.clone();
    let result = loop {
        let object = train.next().expect("the process ended too early");
        assert_ne!(object["event"], "failed", "{object}");
        if object["event"] == "result" {
            break object;
        }
        if object["event"] == "step" {
            seen.extend(blobs(&store));
            if kill_at.is_some() && object["step"].as_u64() >= kill_at {
                kill_at = None;
                pool.kill_coordinator();
                pool.start_coordinator();
            }
        }
    };
    if is_undisturbed {
        assert_eq!(result["inconclusive"], 0, "{result}");
    }
    let (out, proof) = (&result["output_dir"], &result["bundle"]);
    let verified = run(&[
        "verify",
        proof.as_str().unwrap(),
        "--model",
        out.as_str().unwrap(),
    ]);
    verified.unproven();
    let last = blobs(&store);
    seen.extend(last.iter().cloned());
    [first, seen, last]
}

/// Three blobs for each low-rank factor of the small model: 5 layers of 7 projections.
const STATE: usize = 3 * 5 * 7 * 2;

#[test]
fn old_states_are_deleted_and_the_proof_holds() {
    let Some(shared) = shared() else { return };
    let [first, seen, last] = stored(&shared, None);
    let new = last.difference(&first).count();
    // The last state, and one on its way when the last one came; manifests and proof.
    assert!(new <= 2 * STATE + 8, "{new} blobs are left of states");
    let deleted = seen.difference(&last).count();
    assert!(deleted >= STATE, "{deleted} blobs were deleted: no test");
    assert!(first.is_subset(&seen));
}

#[test]
fn a_coordinator_that_was_killed_misses_nothing_that_it_had_deleted() {
    let Some(shared) = shared() else { return };
    let [first, seen, last] = stored(&shared, Some(20));
    let new = last.difference(&first).count();
    // What it was about to delete, or what was being stored, when it was killed is deleted once it
    // is old.
    assert!(new <= 4 * STATE + 8, "{new} blobs are left of states");
    assert!(seen.difference(&last).count() >= STATE);
}

#[test]
fn a_worker_beside_the_store_keeps_no_copy() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    let store = pool.dir.path().join("coordinator/blobs");
    let beside = ["--threads", "1", "--blobs", store.to_str().unwrap()];
    pool.join("worker", &beside);
    pool.join("checker", &beside);
    let job = small_job(pool.dir.path(), &shared, 4, 12, "save_steps: 2");
    let rates = ["--audit-rate", "1"];
    let done = outcome(&pool.train(&job, &[&["--min-checkers", "1"], &rates[..]].concat()));
    assert_eq!(done.result["inconclusive"], 0, "{}", done.result);
    for member in ["worker-0", "checker-1"] {
        let kept = bytes(&pool.dir.path().join(member).join("blobs"));
        // A manifest may have been asked for before it was in its place.
        assert!(kept < 64 << 10, "{member} keeps {kept} bytes");
    }
}

#[test]
fn a_pool_on_one_machine_reads_the_model_where_it_lies() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("pool");
    let job = small_job(dir.path(), &shared, 3, 13, "");
    let local = [
        "--workers",
        "local:2",
        "--pool-dir",
        state.to_str().unwrap(),
    ];
    let ran = run(&[&["--json", "train", job.to_str().unwrap()], &local[..]].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let links = state.join("coordinator/blobs/links");
    assert!(links.is_dir(), "no tensor of the model is linked");
    let model = shared.join("models/tinystories-260k/model.safetensors");
    let (kept, model) = (bytes(&state), model.metadata().unwrap().len());
    let blobs = bytes(&state.join("coordinator/blobs"));
    println!("{blobs} bytes of blobs, {kept} in all, for a model of {model}");
    // Data, the first and the last state of the adapter, and the proof.
    assert!(
        blobs < model,
        "{blobs} bytes of blobs for a model of {model}"
    );
    for member in ["worker-0", "worker-1", "checker-0"] {
        let kept = bytes(&state.join(member).join("blobs"));
        assert_eq!(kept, 0, "{member} keeps a copy");
    }
}
