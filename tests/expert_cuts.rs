//! A layer of experts over several workers: the hash of one worker, whoever is killed in between.

mod pool;

use std::path::{Path, PathBuf};

use pool::{Pool, Process, result, run};
use serde_json::Value;

const STEPS: u32 = 8;
const ONE: &[&str] = &["--threads", "1"];

/// A Mixtral of two layers with 8 experts each, and a text to train it on.
fn model(dir: &Path) -> PathBuf {
    let folder = dir.join("mixtral");
    let made = run(&[
        "make-model",
        "--shape",
        "tiny-mixtral",
        "--dtype",
        "f32",
        folder.to_str().unwrap(),
    ]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let line = |number: u32| {
        format!(
            "{number} times {} is {}\n",
            number % 7,
            number * (number % 7)
        )
    };
    let text: String = (0..600).map(line).collect();
    std::fs::write(dir.join("text.txt"), text).unwrap();
    folder
}

fn job(dir: &Path, adapter: &str) -> PathBuf {
    let text = format!(
        "base_model: {}\ndatasets: [{{path: {}, type: text}}]\n{adapter}\nsequence_len: 48\n\
         micro_batch_size: 2\ngradient_accumulation_steps: 4\nmax_steps: {STEPS}\n\
         learning_rate: 1e-2\nseed: 7\noutput_dir: {}\n",
        model(dir).display(),
        dir.join("text.txt").display(),
        dir.join("out").display()
    );
    let path = dir.join("job.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The layers of each stage of a plan, as events have them.
fn cuts(planned: &Value) -> Vec<Value> {
    let workers = planned["workers"].as_array().unwrap().iter();
    workers.map(|worker| worker["layers"].clone()).collect()
}

/// kill -9 of the worker in this slot of the first plan, once step 3 is final.
fn kill_slot(pool: &mut Pool, train: &Process, planned: &Value, slot: usize) {
    let victim = planned["workers"][slot]["worker"].clone();
    train.until(|object| object["event"] == "step" && object["step"] == 3);
    let index = (0..pool.members.len()).find(|&i| pool.key("worker", i) == victim);
    pool.members[index.unwrap()].kill();
    let lost = train.until(|object| object["event"] == "lost");
    assert_eq!(lost["worker"], victim);
}

struct Case {
    workers: usize,
    plan: &'static str,
    /// Where the stages begin and end.
    cuts: Value,
    killed: Option<usize>,
}

fn one_hash(adapter: &str, cases: &[Case]) {
    let mut hashes = Vec::new();
    for case in cases {
        let mut pool = Pool::new();
        for _ in 0..case.workers {
            pool.join("worker", ONE);
        }
        pool.join("checker", ONE);
        let job = job(pool.dir.path(), adapter);
        let workers = case.workers.to_string();
        let train = pool.train(&job, &["--min-workers", &workers, "--plan", case.plan]);
        let planned = train.until(|object| object["event"] == "planned");
        assert_eq!(Value::from(cuts(&planned)), case.cuts, "{planned}");
        if let Some(slot) = case.killed {
            kill_slot(&mut pool, &train, &planned, slot);
        }
        hashes.push(result(&train)["record_digest"].clone());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// Four stages of which each has half of the experts of a layer: the one that computes with fewer
/// bits is convicted, and the job ends with the hash of honest workers. Its proof holds.
#[cfg(feature = "liars")]
#[test]
fn a_liar_among_the_experts_is_caught() {
    let adapter = "adapter: lora\nlora_r: 4\nlora_alpha: 8";
    let mut honest = Pool::new();
    honest.join("worker", ONE);
    let path = job(honest.dir.path(), adapter);
    let expected = result(&honest.train(&path, &[]))["record_digest"].clone();

    let mut pool = Pool::new();
    for _ in 0..3 {
        pool.join("worker", ONE);
    }
    let liar = pool.join("worker", &[ONE, &["--lie", "lower-precision"]].concat());
    let liar = pool.key("worker", liar);
    for _ in 0..2 {
        pool.join("checker", ONE);
    }
    let path = job(pool.dir.path(), adapter);
    let audits = ["--audit-rate", "1"];
    let members = ["--plan", "4x1", "--min-workers", "4", "--min-checkers", "2"];
    let train = pool.train(&path, &[&audits[..], &members].concat());
    let planned = train.until(|object| object["event"] == "planned");
    assert_eq!(Value::from(cuts(&planned)), in_four(), "{planned}");
    let convicted = train.until(|object| object["event"] == "convicted");
    assert_eq!(convicted["culprit"], liar, "{convicted}");
    pool.join("worker", ONE);
    let result = result(&train);
    assert_eq!(result["record_digest"], expected);
    let verified = run(&["verify", result["bundle"].as_str().unwrap(), "--json"]);
    verified.unproven();
}

fn in_four() -> Value {
    serde_json::json!([[0, "0+4"], ["0+4", 1], [1, "1+4"], ["1+4", 2]])
}

#[test]
fn experts_over_one_two_and_four_workers_have_one_hash() {
    let case = |workers, plan, cuts, killed| Case {
        workers,
        plan,
        cuts,
        killed,
    };
    let whole = serde_json::json!([[0, 2]]);
    let in_two = serde_json::json!([[0, 1], [1, 2]]);
    let lora = "adapter: lora\nlora_r: 4\nlora_alpha: 8";
    one_hash(
        lora,
        &[
            case(1, "1x1", whole.clone(), None),
            case(2, "2x1", in_two, None),
            case(4, "4x1", in_four(), None),
            case(5, "4x1", in_four(), Some(0)),
            case(5, "4x1", in_four(), Some(1)),
            case(5, "4x1", in_four(), Some(3)),
        ],
    );
    one_hash(
        "adapter: full",
        &[
            case(1, "1x1", whole, None),
            case(4, "4x1", in_four(), None),
            case(5, "4x1", in_four(), Some(2)),
        ],
    );
}
