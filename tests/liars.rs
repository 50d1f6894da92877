//! Whoever cheats is caught, by name, and the job ends as if it had never been there.
#![cfg(feature = "liars")]

mod pool;

use pool::{Outcome, Pool, outcome, run, shared, small_job};

const STEPS: u32 = 6;
const ONE: &[&str] = &["--threads", "1"];
const AVX2: &[&str] = &["--threads", "1", "--isa", "avx2"];

/// A cheat in a pool of one honest worker more than the plan needs without it.
struct Case {
    /// As the command line takes it.
    lie: &'static str,
    role: &'static str,
    /// Honest ones.
    workers: usize,
    checkers: usize,
    train: &'static [&'static str],
    offence: &'static str,
    /// A part of the evidence.
    evidence: &'static str,
}

const STAGES: &[&str] = &["--plan", "2x1"];
const REPLICAS: &[&str] = &["--plan", "1x2"];

const fn worker(
    lie: &'static str,
    train: &'static [&'static str],
    offence: &'static str,
    evidence: &'static str,
) -> Case {
    Case {
        lie,
        role: "worker",
        workers: 1,
        checkers: 2,
        train,
        offence,
        evidence,
    }
}

const fn checker(
    lie: &'static str,
    train: &'static [&'static str],
    evidence: &'static str,
) -> Case {
    let (offence, train) = ("false verdict", train);
    Case {
        lie,
        role: "checker",
        workers: 2,
        checkers: 1,
        train,
        offence,
        evidence,
    }
}

const CASES: &[Case] = &[
    worker(
        "skipped-step@3",
        STAGES,
        "wrong result",
        "the update of layers",
    ),
    worker(
        "skipped-step@3",
        REPLICAS,
        "wrong result",
        "the update of layers",
    ),
    worker("wrong-data@3", STAGES, "wrong result", "in step 3"),
    worker("wrong-data@3", REPLICAS, "wrong result", "in step 3"),
    worker("stale-weights@2", STAGES, "wrong result", "in step 3"),
    worker("lower-precision", STAGES, "wrong result", "in step 0"),
    worker("lower-precision", REPLICAS, "wrong result", "in step 0"),
    worker(
        "replayed-claim@3",
        STAGES,
        "replayed claim",
        "asked for step 3",
    ),
    worker(
        "forged-signature@3",
        STAGES,
        "forged signature",
        "signature",
    ),
    worker("malformed-bytes@3", STAGES, "malformed bytes", ""),
    checker("lazy-checker", STAGES, "it passed an altered leaf"),
    checker(
        "lazy-checker@3",
        &["--plan", "2x1", "--canary-rate", "1"],
        "it passed an altered leaf",
    ),
    checker("false-accuser", STAGES, "found it right"),
    checker("false-accuser@3", REPLICAS, "found it right"),
];

/// Runs the job with a pool of these workers and checkers.
fn job_of(
    pool: &Pool,
    shared: &std::path::Path,
    workers: usize,
    checkers: usize,
    train: &[&str],
) -> Outcome {
    let job = small_job(pool.dir.path(), shared, STEPS, 11, "");
    let (workers, checkers) = (workers.to_string(), checkers.to_string());
    let all = ["--audit-rate", "1", "--audit-rate-new", "1"];
    let here = ["--min-workers", &workers, "--min-checkers", &checkers];
    outcome(&pool.train(&job, &[&all[..], &here, train].concat()))
}

fn join_honest(pool: &mut Pool, workers: usize, checkers: usize) {
    for index in 0..workers {
        pool.join("worker", [ONE, AVX2][index % 2]);
    }
    for index in 0..checkers {
        pool.join("checker", [AVX2, ONE][index % 2]);
    }
}

fn verify(outcome: &Outcome, convicted: &[&str]) {
    let ran = run(&[
        "verify",
        outcome.result["bundle"].as_str().unwrap(),
        "--json",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["record_digest"], outcome.result["record_digest"]);
    let named: Vec<&str> = report["convicted"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    assert_eq!(named, convicted);
}

#[test]
fn every_cheat_is_caught_and_nobody_else_is_blamed() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    join_honest(&mut pool, 2, 2);
    let honest = job_of(&pool, &shared, 2, 2, STAGES);
    assert_eq!(honest.convictions, []);
    assert_eq!(honest.result["inconclusive"], 0, "{}", honest.result);
    verify(&honest, &[]);
    drop(pool);
    println!("the honest hash: {}", honest.hash());
    println!(
        "{:<20} {:<6} {:<18} {:<9} {:>7}  evidence",
        "cheat", "plan", "verdict", "culprit", "seconds"
    );
    for case in CASES {
        let mut pool = Pool::new();
        join_honest(&mut pool, case.workers, case.checkers);
        let liar = pool.join(case.role, &[ONE, &["--lie", case.lie]].concat());
        let liar = pool.key(case.role, liar);
        let workers = case.workers + usize::from(case.role == "worker");
        let checkers = case.checkers + usize::from(case.role == "checker");
        let caught = job_of(&pool, &shared, workers, checkers, case.train);
        let [conviction] = &caught.convictions[..] else {
            panic!("{}: convicted are {:?}", case.lie, caught.convictions);
        };
        println!(
            "{:<20} {:<6} {:<18} {:<9} {:>7.1}  {}",
            case.lie,
            case.train[1],
            conviction.offence,
            &conviction.culprit[..8],
            caught.seconds,
            conviction.evidence
        );
        assert_eq!(
            conviction.culprit, liar,
            "{}: the wrong party is blamed",
            case.lie
        );
        assert_eq!(conviction.offence, case.offence, "{}", case.lie);
        assert!(
            conviction.evidence.contains(case.evidence),
            "{}",
            conviction.evidence
        );
        assert_eq!(caught.hash(), honest.hash(), "{}", case.lie);
        verify(&caught, &[&liar]);
    }
}
