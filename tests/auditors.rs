//! `concord train --audit`: an auditor of the client's own, over real processes, on a pool of
//! others and on this machine.

mod pool;

use std::fs;
use std::path::{Path, PathBuf};

use pool::{Outcome, Pool, Ran, outcome, run, shared, small_job};
use serde_json::Value;

const ONE: &[&str] = &["--threads", "1"];

/// Nothing is drawn but by auditors.
const NO_DRAW: &[&str] = &["--audit-rate", "0"];

fn proof_of(done: &Outcome) -> PathBuf {
    Path::new(done.result["output_dir"].as_str().unwrap()).join("proof")
}

fn verify(done: &Outcome, more: &[&str]) -> Ran {
    let proof = proof_of(done);
    run(&[&["--json", "verify", proof.to_str().unwrap()], more].concat())
}

/// The last object that a verification printed.
fn object(ran: &Ran) -> Value {
    let last = ran.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

/// On a pool of others: nobody there audits, and the proof needs nobody's word but the auditor's.
#[test]
fn a_client_audits_a_pool_of_others_by_itself() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    pool.join("worker", ONE);
    pool.join("worker", &["--threads", "1", "--isa", "portable"]);
    let job = small_job(pool.dir.path(), &shared, 10, 5, "");
    let options = [&["--audit", "30%", "--plan", "2x1"], NO_DRAW].concat();
    let done = outcome(&pool.train(&job, &options));
    let key = done.result["auditor"].as_str().expect("its key");
    let shown = verify(&done, &["--checker", key]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    let object = object(&shown);
    assert_eq!(object["event"], "verified");
    let own = &object["checkers"][0];
    assert_eq!(own["checker"], key);
    assert_eq!((&own["unsettled"], &own["steps"]), (&0.into(), &10.into()));
    assert_eq!(own["drawn"], own["agreed"]);
    assert!(own["drawn"].as_u64().unwrap() > 0, "{own}");
    let detection = own["detection"].as_f64().unwrap();
    assert!((detection - (1.0 - 0.7_f64.powi(10))).abs() < 1e-6, "{own}");
    // Without naming it, the same proof is complete and no more: the auditor may be anybody's.
    verify(&done, &[]).unproven();
    // In words.
    let proof = proof_of(&done);
    let plain = run(&["verify", proof.to_str().unwrap(), "--checker", key]);
    assert_eq!(plain.code, Some(0), "{plain:#?}");
    let said = format!("if checker {} is honest", &key[..8]);
    assert!(plain.stdout.contains(&said), "{plain:#?}");
}

/// A worker that lies to a pool without checkers is caught by the client alone.
#[test]
fn a_client_alone_catches_a_liar() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    pool.join("worker", ONE);
    let liar = pool.join("worker", &["--threads", "1", "--lie", "wrong-data@3"]);
    let liar = pool.key("worker", liar);
    let job = small_job(pool.dir.path(), &shared, 8, 6, "");
    let options = [
        &["--audit", "100%", "--plan", "2x1", "--min-workers", "2"],
        NO_DRAW,
    ]
    .concat();
    let train = pool.train(&job, &options);
    // The honest one goes on alone.
    let mut culprits = Vec::new();
    let done = loop {
        let object = train.next().expect("the process ended too early");
        match object["event"].as_str().unwrap_or_default() {
            "convicted" => culprits.push(object["culprit"].as_str().unwrap().to_string()),
            "waiting" if !culprits.is_empty() => {
                pool.join("worker", ONE);
            }
            "result" => break object,
            "failed" | "error" => panic!("{object}"),
            _ => {}
        }
    };
    assert_eq!(culprits, [liar]);
    assert_eq!(done["steps"], 8);
}

/// On this machine, without a checker.
#[test]
fn a_local_job_has_an_auditor_where_it_asks_for_one() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let job = small_job(dir.path(), &shared, 6, 7, "");
    let job = job.to_str().unwrap();
    let options = ["--audit", "0.5", "--checkers", "0"];
    let ran = run(&[&["--json", "train", job], &options[..], NO_DRAW].concat());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let result = object(&ran);
    let key = result["auditor"].as_str().expect("its key");
    let proof = Path::new(result["output_dir"].as_str().unwrap()).join("proof");
    let shown = run(&["verify", proof.to_str().unwrap(), "--checker", key]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    assert!(shown.stdout.starts_with("proven"), "{shown:#?}");
    // Nothing of it is left.
    let left: Vec<_> = fs::read_dir(result["output_dir"].as_str().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(!left.iter().any(|name| name == "auditor"), "{left:?}");
}

#[test]
fn a_share_that_is_none_is_refused_by_name() {
    for share in ["0", "0%", "1.5", "-1%", "NaN", "many"] {
        let ran = run(&["train", "job.yaml", "--audit", share]);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(
            ran.stderr.contains("a share above 0 and at most 1"),
            "{ran:#?}"
        );
    }
}
