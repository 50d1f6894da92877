//! One job, one hash: whatever machines do the work, and whatever happens to them.

mod pool;

use pool::{Pool, Process, job_file, result, shared};
use serde_json::Value;

const STEPS: u32 = 30;

fn is_step(object: &Value, step: u32) -> bool {
    object["event"] == "step" && object["step"] == step
}

/// A pool of workers with these options.
fn pool_of(workers: &[&[&str]]) -> Pool {
    let mut pool = Pool::new();
    for options in workers {
        pool.join("worker", options);
    }
    pool
}

struct Case<'a> {
    what: &'a str,
    workers: &'a [&'a [&'a str]],
    train: &'a [&'a str],
    /// What happens to the pool while the job runs.
    meanwhile: fn(&mut Pool, &Process),
}

const ONE: &[&str] = &["--threads", "1"];
const AVX2: &[&str] = &["--threads", "1", "--isa", "avx2"];
const PORTABLE: &[&str] = &["--threads", "1", "--isa", "portable"];

fn nothing(_: &mut Pool, _: &Process) {}

/// kill -9 of the worker that holds the stage which starts at layer `first`.
fn kill_stage(pool: &mut Pool, train: &Process, first: u32) {
    let planned = train.until(|object| object["event"] == "planned");
    let seats = planned["workers"].as_array().unwrap();
    let seat = seats.iter().find(|seat| seat["layers"][0] == first).unwrap();
    train.until(|object| is_step(object, 7));
    let victim = (0..pool.members.len()).find(|&i| pool.key("worker", i) == seat["worker"]);
    pool.members[victim.unwrap()].kill();
    let lost = train.until(|object| object["event"] == "lost");
    assert_eq!(lost["worker"], seat["worker"]);
}

fn kill_first(pool: &mut Pool, train: &Process) {
    kill_stage(pool, train, 0);
}

fn kill_middle(pool: &mut Pool, train: &Process) {
    let planned = train.until(|object| object["event"] == "planned");
    let seats = planned["workers"].as_array().unwrap();
    let seat = seats[1].clone();
    train.until(|object| is_step(object, 9));
    let victim = (0..pool.members.len()).find(|&i| pool.key("worker", i) == seat["worker"]);
    pool.members[victim.unwrap()].kill();
}

fn kill_last(pool: &mut Pool, train: &Process) {
    let planned = train.until(|object| object["event"] == "planned");
    let seats = planned["workers"].as_array().unwrap();
    let seat = seats[seats.len() - 1].clone();
    train.until(|object| is_step(object, 12));
    let victim = (0..pool.members.len()).find(|&i| pool.key("worker", i) == seat["worker"]);
    pool.members[victim.unwrap()].kill();
}

fn restart_coordinator(pool: &mut Pool, train: &Process) {
    train.until(|object| is_step(object, 8));
    pool.kill_coordinator();
    pool.start_coordinator();
}

fn join_in_mid_run(pool: &mut Pool, train: &Process) {
    train.until(|object| is_step(object, 5));
    pool.join("worker", ONE);
    // It takes part: a second plan, with two workers in it.
    let planned = train.until(|object| object["event"] == "planned" && object["epoch"] != 1);
    assert_eq!(planned["workers"].as_array().unwrap().len(), 2, "{planned}");
}

#[test]
fn one_job_has_one_hash_on_every_pool() {
    let Some(shared) = shared() else { return };
    let cases = [
        Case { what: "1 worker", workers: &[ONE], train: &[], meanwhile: nothing },
        Case {
            what: "1 worker, 2 threads",
            workers: &[&["--threads", "2"]],
            train: &[],
            meanwhile: nothing,
        },
        Case { what: "1 worker, AVX2 only", workers: &[AVX2], train: &[], meanwhile: nothing },
        Case { what: "2 stages", workers: &[ONE; 2], train: &["--plan", "2x1"], meanwhile: nothing },
        Case {
            what: "3 stages, unlike",
            workers: &[ONE, AVX2, PORTABLE],
            train: &["--plan", "3x1"],
            meanwhile: nothing,
        },
        Case {
            what: "2 replicas x 2 stages",
            workers: &[ONE, AVX2, ONE, AVX2],
            train: &["--plan", "2x2"],
            meanwhile: nothing,
        },
        Case {
            what: "3 replicas, unequal shares",
            workers: &[ONE; 3],
            train: &["--plan", "1x3", "--shares", "1,2,5"],
            meanwhile: nothing,
        },
        Case {
            what: "3 stages, first killed",
            workers: &[ONE; 4],
            train: &["--plan", "3x1"],
            meanwhile: kill_first,
        },
        Case {
            what: "3 stages, middle killed",
            workers: &[ONE; 4],
            train: &["--plan", "3x1"],
            meanwhile: kill_middle,
        },
        Case {
            what: "3 stages, last killed",
            workers: &[ONE; 4],
            train: &["--plan", "3x1"],
            meanwhile: kill_last,
        },
        Case {
            what: "2 replicas, one killed",
            workers: &[ONE; 2],
            train: &["--plan", "auto"],
            meanwhile: kill_last,
        },
        Case {
            what: "2 stages, coordinator killed",
            workers: &[ONE; 2],
            train: &["--plan", "2x1"],
            meanwhile: restart_coordinator,
        },
        Case { what: "a worker joins", workers: &[ONE], train: &[], meanwhile: join_in_mid_run },
    ];
    let mut hashes = Vec::new();
    for case in cases {
        println!("{}", case.what);
        let mut pool = pool_of(case.workers);
        let job = job_file(pool.dir.path(), &shared, STEPS, "seed: 7");
        let workers = case.workers.len().to_string();
        let options = [&["--min-workers", &workers], case.train].concat();
        let train = pool.train(&job, &options);
        (case.meanwhile)(&mut pool, &train);
        let result = result(&train);
        assert_eq!(result["steps"], STEPS);
        hashes.push((case.what, result["record_digest"].as_str().unwrap().to_string()));
    }
    println!("the hash of the job: {}", hashes[0].1);
    for (what, hash) in &hashes {
        assert_eq!(*hash, hashes[0].1, "{what}");
    }
}
