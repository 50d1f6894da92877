//! Evaluation during training: part of the chain, the same on every pool, audited, and what follows
//! from it.

mod pool;

use std::path::Path;

use pool::{Pool, Process, result, run, shared, small_job};
use serde_json::Value;

const STEPS: u32 = 6;
const ONE: &[&str] = &["--threads", "1"];
const PORTABLE: &[&str] = &["--threads", "1", "--isa", "portable"];

/// Six steps, with evaluations before the first and after each second.
const EVALUATED: &str = "val_set_size: 0.1\neval_steps: 2\neval_on_start: true\neval_batch_size: 3";

fn pool_of(workers: &[&[&str]]) -> Pool {
    let mut pool = Pool::new();
    for options in workers {
        pool.join("worker", options);
    }
    pool
}

/// The losses of the evaluations in a log, by the steps before them.
fn evaluations(dir: &Path) -> Vec<(u64, f64)> {
    let log = std::fs::read_to_string(dir.join("out-5/log.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = lines.filter(|object| object["event"] == "evaluation");
    found
        .map(|object| {
            let loss = object["eval_loss"].as_f64().unwrap();
            (object["step"].as_u64().unwrap(), loss)
        })
        .collect()
}

fn kill_second(pool: &mut Pool, train: &Process) {
    let planned = train.until(|object| object["event"] == "planned");
    let victim = planned["workers"][1]["worker"].clone();
    train.until(|object| object["event"] == "evaluation" && object["step"] == 2);
    let index = (0..pool.members.len()).find(|&i| pool.key("worker", i) == victim);
    pool.members[index.unwrap()].kill();
}

fn restart(pool: &mut Pool, train: &Process) {
    train.until(|object| object["event"] == "evaluation" && object["step"] == 4);
    pool.kill_coordinator();
    pool.start_coordinator();
}

/// The workers of a pool, how the job is submitted, and what happens to the pool meanwhile.
type Case<'a> = (&'a [&'a [&'a str]], &'a [&'a str], fn(&mut Pool, &Process));

#[test]
fn an_evaluated_job_has_one_hash_on_every_pool() {
    let Some(shared) = shared() else { return };
    let cases: [Case<'_>; 4] = [
        (&[ONE], &[], |_, _| {}),
        (&[ONE, PORTABLE, ONE, ONE], &["--plan", "2x2"], |_, _| {}),
        (&[ONE, PORTABLE, ONE], &["--plan", "2x1"], kill_second),
        (&[ONE, ONE], &["--plan", "1x2"], restart),
    ];
    let mut all = Vec::new();
    for (workers, train, meanwhile) in cases {
        let mut pool = pool_of(workers);
        let job = small_job(pool.dir.path(), &shared, STEPS, 5, EVALUATED);
        let count = workers.len().to_string();
        let train = pool.train(&job, &[&["--min-workers", &count], train].concat());
        meanwhile(&mut pool, &train);
        let result = result(&train);
        let found = evaluations(pool.dir.path());
        let steps: Vec<u64> = found.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [0, 2, 4, 6], "{train:?}", train = workers.len());
        all.push((result["record_digest"].clone(), found));
        let proof = result["bundle"].as_str().unwrap();
        let told = run(&["verify", proof]).stdout;
        assert!(told.contains("evaluations 4, the lowest loss"), "{told}");
        // An evaluation is no step of a worker.
        assert!(
            told.contains(" 6 steps, ") && !told.contains(" 10 steps, "),
            "{told}"
        );
    }
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    let losses = &all[0].1;
    assert!(losses[3].1 < losses[0].1, "it learns: {losses:?}");
}

/// The rate is so high that the loss rises again: the job stops, and its result is the best state.
#[test]
fn patience_ends_a_job_and_the_best_state_is_its_result() {
    let Some(shared) = shared() else { return };
    let pool = pool_of(&[ONE]);
    let more = "val_set_size: 0.1\neval_steps: 1\nload_best_model_at_end: true\n\
                early_stopping_patience: 2\nlr_scheduler: constant";
    let job = small_job(pool.dir.path(), &shared, 60, 5, more);
    let text = std::fs::read_to_string(&job).unwrap();
    std::fs::write(&job, text.replace("1e-2", "0.1")).unwrap();
    let result = result(&pool.train(&job, &["--min-workers", "1"]));
    let found = evaluations(pool.dir.path());
    assert_eq!(result["stopped_early"], true, "{result}");
    let (best, lowest) = found
        .iter()
        .copied()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    assert_eq!(result["best_step"], best, "{found:?}");
    assert_eq!(result["best_eval_loss"], lowest);
    assert_eq!(result["steps"], best + 2, "{found:?}");
    // What is told of the result is told of the state that comes out.
    let last = found.last().unwrap().1;
    assert_eq!(result["eval_loss"], lowest, "{found:?}");
    assert_eq!(result["last_eval_loss"], last, "{found:?}");
    let card = std::fs::read_to_string(pool.dir.path().join("out-5/README.md")).unwrap();
    for row in [
        format!("| steps | {} of 60, stopped early |", best + 2),
        format!("| state | after step {best}, the best on held-out data |"),
        format!("| loss on held-out data | {lowest:.4} |"),
        "| lr_scheduler | constant |".to_string(),
    ] {
        assert!(card.contains(&row), "{row}: {card}");
    }
    assert!(!card.contains(&format!("{last:.4}")), "{card}");
    let (out, proof) = (
        pool.dir.path().join("out-5"),
        result["bundle"].as_str().unwrap(),
    );
    let told = run(&["verify", proof, "--model", out.to_str().unwrap()]).stdout;
    for words in [
        "left out by early_stopping_patience",
        "as the best evaluation found it",
    ] {
        assert!(told.contains(words), "{told}");
    }
}

/// A worker that has no microbatch of an evaluation cannot lie in it: such steps do not make it
/// likelier that a lie was found.
#[test]
fn evaluations_without_a_part_for_all_do_not_count_for_the_figure() {
    let Some(shared) = shared() else { return };
    for (batch, counted) in [(100, STEPS), (1, STEPS + 3)] {
        let pool = pool_of(&[ONE, ONE]);
        let more = format!("val_set_size: 0.1\neval_steps: 2\neval_batch_size: {batch}");
        let job = small_job(pool.dir.path(), &shared, STEPS, 5, &more);
        let audit = ["--audit", "1%"];
        let here = ["--min-workers", "2", "--plan", "1x2"];
        let result = result(&pool.train(&job, &[&audit[..], &here].concat()));
        let ran = run(&["--json", "verify", result["bundle"].as_str().unwrap()]);
        let report: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(report["checkers"][0]["steps"], counted, "{report}");
    }
}

#[test]
fn a_loss_above_the_watchdog_fails_the_job_and_blames_nobody() {
    let Some(shared) = shared() else { return };
    let pool = pool_of(&[ONE]);
    let more = "loss_watchdog_threshold: 0.5\nloss_watchdog_patience: 2";
    let job = small_job(pool.dir.path(), &shared, STEPS, 5, more);
    let train = pool.train(&job, &["--min-workers", "1"]);
    let failed = train.until(|object| object["event"] == "failed");
    let why = failed["reason"].as_str().unwrap();
    assert!(why.contains("the loss diverged at step 2: it is"), "{why}");
}

/// Steps of the chain: evaluation 0, updates 1 and 2, evaluation 3.
#[cfg(feature = "liars")]
#[test]
fn a_liar_in_an_evaluation_is_caught() {
    let Some(shared) = shared() else { return };
    for plan in ["2x1", "1x2"] {
        let mut pool = Pool::new();
        pool.join("worker", ONE);
        let index = pool.join("worker", &[ONE, &["--lie", "wrong-data@3"]].concat());
        let liar = pool.key("worker", index);
        pool.join("checker", ONE);
        pool.join("checker", PORTABLE);
        let job = small_job(pool.dir.path(), &shared, STEPS, 5, EVALUATED);
        let all = ["--audit-rate", "1"];
        let here = ["--min-workers", "2", "--min-checkers", "2", "--plan", plan];
        let caught = pool::outcome(&pool.train(&job, &[&all[..], &here].concat()));
        let [conviction] = &caught.convictions[..] else {
            panic!("{:?}", caught.convictions);
        };
        assert_eq!(
            (&*conviction.offence, &conviction.culprit),
            ("wrong result", &liar)
        );
        assert!(
            conviction
                .evidence
                .contains("in the evaluation after step 2"),
            "{}",
            conviction.evidence
        );
    }
}
