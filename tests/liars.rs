//! Every liar is caught, by name, and the job ends as if it had never been there.
#![cfg(feature = "liars")]

mod pool;

use std::path::Path;

use pool::{Outcome, Pool, outcome, run, shared, small_job};

const STEPS: u32 = 6;
const ONE: &[&str] = &["--threads", "1"];
const PORTABLE: &[&str] = &["--threads", "1", "--isa", "portable"];

/// A cheat in a pool of honest ones.
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
    worker("wrong-data@3", STAGES, "wrong result", "in step 4"),
    worker("wrong-data@3", REPLICAS, "wrong result", "in step 4"),
    worker("no-dropout@3", STAGES, "wrong result", "in step 4"),
    worker("stale-weights@2", STAGES, "wrong result", "in step 4"),
    worker(
        "false-norm@3",
        STAGES,
        "wrong result",
        "the gradient norms of layers",
    ),
    // Beside an honest replica it is found before the step is done.
    worker(
        "false-norm@3",
        REPLICAS,
        "wrong result",
        "the gradient norms of layers",
    ),
    worker(
        "nan-norm@3",
        STAGES,
        "wrong result",
        "the gradient norms of layers",
    ),
    worker(
        "infinite-norm@3",
        STAGES,
        "wrong result",
        "the gradient norms of layers",
    ),
    worker("lower-precision", STAGES, "wrong result", "in step 1"),
    worker("lower-precision", REPLICAS, "wrong result", "in step 1"),
    // One checker is enough: the referee decides.
    Case {
        checkers: 1,
        ..worker("wrong-data@3", STAGES, "wrong result", "in step 4")
    },
    checker("lazy-checker", STAGES, "shows no trace of a re-run"),
    checker(
        "lazy-checker@3",
        &["--plan", "2x1", "--recheck-rate", "1"],
        "shows no trace of a re-run",
    ),
    checker("false-accuser", STAGES, "the referee found something else"),
    checker(
        "false-accuser@3",
        REPLICAS,
        "the referee found something else",
    ),
];

/// Runs the job with a pool of these workers and checkers, of whose work a share of `rate` is
/// audited.
fn job_of(
    pool: &Pool,
    shared: &Path,
    workers: usize,
    checkers: usize,
    rate: &str,
    train: &[&str],
) -> Outcome {
    let job = small_job(pool.dir.path(), shared, STEPS, 11, "lora_dropout: 0.1");
    let (workers, checkers) = (workers.to_string(), checkers.to_string());
    let all = ["--audit-rate", rate];
    let here = ["--min-workers", &workers, "--min-checkers", &checkers];
    outcome(&pool.train(&job, &[&all[..], &here, train].concat()))
}

fn join_honest(pool: &mut Pool, workers: usize, checkers: usize) {
    for index in 0..workers {
        pool.join("worker", [ONE, PORTABLE][index % 2]);
    }
    for index in 0..checkers {
        pool.join("checker", [PORTABLE, ONE][index % 2]);
    }
}

fn verify(outcome: &Outcome, convicted: &[&str]) {
    let ran = run(&[
        "verify",
        outcome.result["bundle"].as_str().unwrap(),
        "--json",
    ]);
    ran.unproven();
    let report = ran.stdout.lines().next().unwrap();
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["record_digest"], outcome.result["record_digest"]);
    let named: Vec<&str> = report["convicted"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    assert_eq!(named, convicted);
}

/// The hash of the job of all cases, done by honest workers.
fn honest_hash(shared: &Path) -> String {
    let mut pool = Pool::new();
    join_honest(&mut pool, 2, 2);
    let honest = job_of(&pool, shared, 2, 2, "1", STAGES);
    assert_eq!(honest.convictions, []);
    assert_eq!(honest.result["inconclusive"], 0, "{}", honest.result);
    verify(&honest, &[]);
    honest.hash()
}

#[test]
fn every_cheat_is_caught_and_nobody_else_is_blamed() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    println!("the honest hash: {honest}");
    println!(
        "{:<20} {:<6} {:<18} {:<9} {:>7}  evidence",
        "cheat", "plan", "verdict", "culprit", "seconds"
    );
    for case in CASES {
        let mut pool = Pool::new();
        join_honest(&mut pool, case.workers, case.checkers);
        let index = pool.join(case.role, &[ONE, &["--lie", case.lie]].concat());
        let liar = pool.key(case.role, index);
        let workers = case.workers + usize::from(case.role == "worker");
        let checkers = case.checkers + usize::from(case.role == "checker");
        let caught = job_of(&pool, &shared, workers, checkers, "1", case.train);
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
        let words = format!("{}: {conviction:?}", case.lie);
        assert_eq!(conviction.culprit, liar, "the wrong party: {words}");
        assert_eq!(conviction.offence, case.offence, "{words}");
        assert!(conviction.evidence.contains(case.evidence), "{words}");
        assert_eq!(caught.hash(), honest, "{words}");
        assert_eq!(caught.result["inconclusive"], 0, "{words}");
        verify(&caught, &[&liar]);
        comes_back_in_vain(&mut pool, case, index);
    }
}

/// Bytes that are no message, under a good signature or none, may come from anyone on the way: they
/// end the session. Whoever sends them again and again gets no work for a while, and the others do
/// the job.
#[test]
fn bytes_that_are_no_message_convict_nobody_and_stop_no_job() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    let mut pool = Pool::new();
    join_honest(&mut pool, 1, 2);
    pool.join("worker", &[ONE, &["--lie", "malformed-bytes@3"]].concat());
    let done = job_of(&pool, &shared, 2, 2, "1", STAGES);
    assert_eq!(done.convictions, []);
    assert!(done.count("lost") > 0, "{:?}", done.events);
    assert_eq!(done.hash(), honest);
    verify(&done, &[]);
}

/// Two checkers that lie alike are no more than one: each word that does not fit the re-run of the
/// referee convicts, and the worker that they accuse stays.
#[test]
fn two_accusers_do_not_beat_the_truth() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    let mut pool = Pool::new();
    join_honest(&mut pool, 2, 0);
    let liars = ["false-accuser", "false-accuser@2"].map(|lie| {
        let index = pool.join("checker", &[ONE, &["--lie", lie]].concat());
        pool.key("checker", index)
    });
    let done = job_of(&pool, &shared, 2, 2, "1", STAGES);
    let mut culprits: Vec<String> = done.convictions.iter().map(|c| c.culprit.clone()).collect();
    culprits.sort();
    let mut due = liars.to_vec();
    due.sort();
    assert_eq!(culprits, due, "{:?}", done.convictions);
    assert!(
        done.convictions
            .iter()
            .all(|c| c.offence == "false verdict")
    );
    assert_eq!(done.hash(), honest);
}

/// A coordinator that has no memory for a re-run convicts nobody: the job goes on without the liar.
#[test]
fn a_referee_without_memory_convicts_nobody() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    for options in [["--referee-memory", "1M"], ["--referee", "off"]] {
        let mut pool = Pool::with_coordinator(&options);
        join_honest(&mut pool, 1, 2);
        pool.join("worker", &[ONE, &["--lie", "wrong-data@3"]].concat());
        let done = job_of(&pool, &shared, 2, 2, "1", STAGES);
        assert_eq!(done.convictions, [], "{options:?}");
        assert_eq!(done.hash(), honest, "{options:?}");
    }
}

/// Lies that nothing shows to others: the job goes on without the liar, whose key stays.
#[test]
fn what_nothing_shows_convicts_nobody() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    for lie in ["replayed-claim@3", "forged-signature@3"] {
        let mut pool = Pool::new();
        join_honest(&mut pool, 1, 2);
        pool.join("worker", &[ONE, &["--lie", lie]].concat());
        let done = job_of(&pool, &shared, 2, 2, "1", STAGES);
        assert_eq!(done.convictions, [], "{lie}");
        assert_eq!(done.hash(), honest, "{lie}");
        verify(&done, &[]);
    }
}

/// Where every weight is trained, a worker opens a sum with what its microbatches are computed
/// from.
#[test]
fn every_cheat_in_a_full_fine_tune_is_caught() {
    let Some(shared) = shared() else { return };
    let job_of = |lie: Option<&str>, plan: &str| {
        let mut pool = Pool::new();
        join_honest(&mut pool, 2 - usize::from(lie.is_some()), 2);
        let liar = lie.map(|lie| {
            let index = pool.join("worker", &[ONE, &["--lie", lie]].concat());
            pool.key("worker", index)
        });
        let job = small_job(pool.dir.path(), &shared, STEPS, 11, "");
        let text = std::fs::read_to_string(&job).unwrap();
        let full = text.replace("adapter: lora\nlora_r: 4\n", "adapter: full\n");
        assert_ne!(full, text);
        std::fs::write(&job, full).unwrap();
        let all = ["--audit-rate", "1"];
        let here = ["--min-workers", "2", "--min-checkers", "2", "--plan", plan];
        let done = outcome(&pool.train(&job, &[&all[..], &here].concat()));
        verify(&done, &liar.iter().map(String::as_str).collect::<Vec<_>>());
        (liar, done)
    };
    let honest = job_of(None, "2x1").1.hash();
    for (lie, plan, evidence) in [
        ("wrong-data@3", "2x1", "in step 4"),
        ("wrong-data@3", "1x2", "in step 4"),
        ("skipped-step@3", "2x1", "the update of layers"),
        ("false-norm@3", "2x1", "the gradient norms of layers"),
    ] {
        let (liar, caught) = job_of(Some(lie), plan);
        let [conviction] = &caught.convictions[..] else {
            panic!("{lie}: convicted are {:?}", caught.convictions);
        };
        let words = format!("{lie}: {conviction:?}");
        assert_eq!(Some(&conviction.culprit), liar.as_ref(), "{words}");
        assert_eq!(conviction.offence, "wrong result", "{words}");
        assert!(conviction.evidence.contains(evidence), "{words}");
        // A claim of the liar that is still open when it is thrown out stays without a verdict: its
        // step is done again by others.
        assert_eq!(caught.hash(), honest, "{words}");
    }
}

/// A convicted key is out for good, whichever process uses it.
fn comes_back_in_vain(pool: &mut Pool, case: &Case, index: usize) {
    // It ends on its own once it has read that it is refused.
    pool.members[index].ended();
    let dir = pool.dir.path().join(format!("{}-{index}", case.role));
    let args = [case.role, "--coordinator", &pool.url, "--dir"];
    run(&[&args[..], &[dir.to_str().unwrap()]].concat()).refused(&[
        "this key was convicted of",
        case.offence,
        "is out",
    ]);
}

/// The cheats do change the result: if nobody audits, another model comes out.
#[test]
fn unaudited_lies_change_the_result() {
    let Some(shared) = shared() else { return };
    let honest = honest_hash(&shared);
    for lie in [
        "skipped-step@3",
        "wrong-data@3",
        "no-dropout@3",
        "false-norm@3",
        "stale-weights@2",
        "lower-precision",
    ] {
        let mut pool = Pool::new();
        join_honest(&mut pool, 1, 0);
        pool.join("worker", &[ONE, &["--lie", lie]].concat());
        let unseen = job_of(&pool, &shared, 2, 0, "0", STAGES);
        assert_eq!(unseen.convictions, [], "{lie}");
        assert_ne!(unseen.hash(), honest, "{lie}");
    }
}
