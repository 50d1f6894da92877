//! One job, one hash: whatever machines do the work, and whatever happens to them.

mod pool;

use std::path::{Path, PathBuf};

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

/// kill -9 of the worker in this slot of the first plan, while the step after `step` is under way.
fn kill_slot(pool: &mut Pool, train: &Process, slot: usize, step: u32) {
    let planned = train.until(|object| object["event"] == "planned");
    let victim = planned["workers"][slot]["worker"].clone();
    train.until(|object| is_step(object, step));
    let index = (0..pool.members.len()).find(|&i| pool.key("worker", i) == victim);
    pool.members[index.unwrap()].kill();
    let lost = train.until(|object| object["event"] == "lost");
    assert_eq!(lost["worker"], victim);
}

fn kill_first(pool: &mut Pool, train: &Process) {
    kill_slot(pool, train, 0, 7);
}

fn kill_second(pool: &mut Pool, train: &Process) {
    kill_slot(pool, train, 1, 9);
}

fn kill_third(pool: &mut Pool, train: &Process) {
    kill_slot(pool, train, 2, 12);
}

/// Ctrl-C at a worker: it hands its stage over and leaves of its own accord.
fn drain_second(pool: &mut Pool, train: &Process) {
    let planned = train.until(|object| object["event"] == "planned");
    let leaver = planned["workers"][1]["worker"].clone();
    train.until(|object| is_step(object, 6));
    let index = (0..pool.members.len())
        .find(|&i| pool.key("worker", i) == leaver)
        .unwrap();
    pool.members[index].interrupt();
    let planned = train.until(|object| object["event"] == "planned");
    assert!(
        planned["workers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|slot| slot["worker"] != leaver)
    );
    assert!(pool.members[index].ends_well());
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
        Case {
            what: "1 worker",
            workers: &[ONE],
            train: &[],
            meanwhile: nothing,
        },
        Case {
            what: "1 worker, 2 threads",
            workers: &[&["--threads", "2"]],
            train: &[],
            meanwhile: nothing,
        },
        Case {
            what: "1 worker, AVX2 only",
            workers: &[AVX2],
            train: &[],
            meanwhile: nothing,
        },
        Case {
            what: "2 stages",
            workers: &[ONE; 2],
            train: &["--plan", "2x1"],
            meanwhile: nothing,
        },
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
            meanwhile: kill_second,
        },
        Case {
            what: "3 stages, last killed",
            workers: &[ONE; 4],
            train: &["--plan", "3x1"],
            meanwhile: kill_third,
        },
        Case {
            what: "2 replicas, one killed",
            workers: &[ONE; 2],
            train: &["--plan", "auto"],
            meanwhile: kill_second,
        },
        Case {
            what: "2 stages, second drained",
            workers: &[ONE; 3],
            train: &["--plan", "2x1"],
            meanwhile: drain_second,
        },
        Case {
            what: "2 stages, coordinator killed",
            workers: &[ONE; 2],
            train: &["--plan", "2x1"],
            meanwhile: restart_coordinator,
        },
        Case {
            what: "a worker joins",
            workers: &[ONE],
            train: &[],
            meanwhile: join_in_mid_run,
        },
    ];
    let make = |dir: &Path| job_file(dir, &shared, STEPS, "seed: 7");
    one_hash(&cases, make);
}

/// Runs all cases and compares.
fn one_hash(cases: &[Case<'_>], make: impl Fn(&Path) -> PathBuf) {
    let mut hashes = Vec::new();
    for case in cases {
        println!("{}", case.what);
        let mut pool = pool_of(case.workers);
        let job = make(pool.dir.path());
        let workers = case.workers.len().to_string();
        let options = [&["--min-workers", &workers], case.train].concat();
        let train = pool.train(&job, &options);
        (case.meanwhile)(&mut pool, &train);
        let result = result(&train);
        hashes.push((
            case.what,
            result["record_digest"].as_str().unwrap().to_string(),
        ));
    }
    println!("the hash of the job: {}", hashes[0].1);
    for (what, hash) in &hashes {
        assert_eq!(*hash, hashes[0].1, "{what}");
    }
}

/// Every tensor is trained; the embedding is also the head, so both ends of a pipeline hold it.
#[test]
fn a_full_fine_tune_has_one_hash_too() {
    let Some(shared) = shared() else { return };
    let case = |what, workers, train| Case {
        what,
        workers,
        train,
        meanwhile: nothing,
    };
    let cases = [
        case("full, 1 worker", &[ONE][..], &[][..]),
        case(
            "full, 3 stages",
            &[ONE, AVX2, ONE][..],
            &["--plan", "3x1"][..],
        ),
        case(
            "full, 2 stages x 2 replicas",
            &[ONE; 4][..],
            &["--plan", "2x2"][..],
        ),
        Case {
            what: "full, 2 stages, last killed",
            workers: &[ONE; 3],
            train: &["--plan", "2x1"],
            meanwhile: |pool, train| kill_slot(pool, train, 1, 2),
        },
    ];
    for more in [
        "recompute: false",
        "recompute: true",
        "optimizer: adamw_8bit",
    ] {
        let make = |dir: &Path| {
            let path = job_file(dir, &shared, 6, more);
            let text = std::fs::read_to_string(&path).unwrap();
            let lora = "adapter: lora\nlora_r: 8\nlora_alpha: 16\n";
            std::fs::write(&path, text.replace(lora, "adapter: full\n")).unwrap();
            path
        };
        one_hash(&cases, make);
    }
}

/// Examples of unlike lengths, each in a sequence of its own, and packed into shared ones; with
/// dropout, noise, smoothed targets and z-loss.
#[test]
fn examples_of_unlike_lengths_have_one_hash_packed_or_not() {
    let Some(shared) = shared() else { return };
    let cases = [
        Case {
            what: "unlike, 1 worker",
            workers: &[ONE],
            train: &["--audit-rate", "1"],
            meanwhile: nothing,
        },
        Case {
            what: "unlike, 2 stages x 2 replicas",
            workers: &[ONE, AVX2, PORTABLE, ONE],
            train: &["--plan", "2x2"],
            meanwhile: nothing,
        },
        Case {
            what: "unlike, 3 stages, middle killed",
            workers: &[ONE; 4],
            train: &["--plan", "3x1"],
            meanwhile: |pool, train| kill_slot(pool, train, 1, 2),
        },
    ];
    let drawn =
        "lora_dropout: 0.1\nneftune_noise_alpha: 5\nlabel_smoothing_factor: 0.1\nz_loss: 1e-4";
    for packing in ["false", "true"] {
        let packing = &format!("sample_packing: {packing}\n{drawn}");
        let make = |dir: &Path| {
            let path = job_file(dir, &shared, 6, packing);
            let rows = (0..60).map(|i| {
                let answer = "and so the day went on, ".repeat(1 + i * 7 % 11);
                let row = serde_json::json!({"instruction": format!("Day {i}"), "output": answer});
                format!("{row}\n")
            });
            let data = dir.join("days.jsonl");
            std::fs::write(&data, rows.collect::<String>()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let texts = shared.join("data/tinyshakespeare.txt");
            let from = format!("path: {}, type: text", texts.display());
            let to = format!("path: {}, type: instruct", data.display());
            assert!(text.contains(&from));
            std::fs::write(&path, text.replace(&from, &to)).unwrap();
            path
        };
        one_hash(&cases, make);
    }
}

/// An adapter whose moments have 8 bits: codes and scales go to the store and come back when a
/// worker is lost. It learns as with moments of f32.
#[test]
fn moments_in_8_bits_have_one_hash_and_learn_as_well() {
    let Some(shared) = shared() else { return };
    let cases = [
        Case {
            what: "8 bits, 1 worker",
            workers: &[ONE],
            train: &[],
            meanwhile: nothing,
        },
        Case {
            what: "8 bits, 2 stages, unlike, second killed",
            workers: &[ONE, AVX2, PORTABLE],
            train: &["--plan", "2x1"],
            meanwhile: kill_second,
        },
    ];
    let with = |moments: &'static str| {
        let shared = shared.clone();
        move |dir: &Path| job_file(dir, &shared, STEPS, moments)
    };
    one_hash(&cases, with("optimizer: adamw_8bit"));
    let losses = ["optimizer: adamw_torch", "optimizer: adamw_8bit"].map(|moments| {
        let pool = pool_of(&[ONE]);
        let train = pool.train(&with(moments)(pool.dir.path()), &["--min-workers", "1"]);
        let objects = std::iter::from_fn(|| train.next());
        let steps = objects.filter(|object| object["event"] == "step");
        let losses: Vec<f64> = steps.map(|step| step["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), STEPS as usize, "{moments}");
        [losses[0], losses[STEPS as usize - 1]]
    });
    println!("loss of the first and the last step, f32 and 8 bits: {losses:?}");
    let [[first, f32_last], [same, packed_last]] = losses;
    assert_eq!(first, same, "the first step has no moments yet");
    assert!(f32_last < first - 0.05, "it learns nothing: {losses:?}");
    assert!((packed_last - f32_last).abs() < 0.01, "{losses:?}");
}
