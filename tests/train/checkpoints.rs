//! Folders `checkpoint-N`: what is in them, which of them are kept, and whose they are.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::jobs::{Home, Job};

/// The steps of the checkpoints in the output folder.
fn checkpoints(job: &Job) -> Vec<u32> {
    let steps = job.entries().into_iter().filter_map(|name| {
        let steps = name.strip_prefix("checkpoint-")?.parse().ok()?;
        assert_whole(&job.output.join(&name), steps);
        Some(steps)
    });
    let mut steps: Vec<u32> = steps.collect();
    steps.sort_unstable();
    steps
}

/// Asserts that a folder has all files of a checkpoint of an adapter.
#[track_caller]
fn assert_whole(dir: &Path, steps: u32) {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let expected = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    ];
    assert_eq!(names, expected, "{}", dir.display());
    let state = state(dir);
    assert_eq!(state["global_step"], steps);
    let history = state["log_history"].as_array().unwrap();
    let logged: Vec<_> = history.iter().map(|line| line["step"].as_u64()).collect();
    let all: Vec<_> = (1..=u64::from(steps)).map(Some).collect();
    assert_eq!(logged, all, "{}", dir.display());
}

fn state(dir: &Path) -> Value {
    let text = fs::read_to_string(dir.join("trainer_state.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn weights(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn the_newest_are_kept_and_the_last_is_the_result() {
    let home = Home::new();
    let job = home.job("out", 23, "save_total_limit: 3");
    let ran = job.run(&[]).good();
    // One that newer ones have overtaken is not written.
    assert!(ran.count("checkpoint") >= 3, "{ran:#?}");
    assert_eq!(checkpoints(&job), [15, 20, 23]);
    assert_eq!(
        weights(&job.output.join("checkpoint-23")),
        weights(&job.output)
    );
    let state = state(&job.output.join("checkpoint-20"));
    let log = job.log();
    for key in ["loss", "grad_norm", "learning_rate"] {
        assert_eq!(state["log_history"][19][key], log[19][key], "{key}");
    }
    assert_eq!(state["max_steps"], 23);
    // A shorter job with the same rates has the weights of the checkpoint at its end.
    let all = home.job("all", 23, "save_total_limit: 0");
    all.run(&[]).good();
    assert_eq!(checkpoints(&all), [5, 10, 15, 20, 23]);
    let same = |steps: &str| weights(&job.output.join(steps)) == weights(&all.output.join(steps));
    assert!(same("checkpoint-15") && same("checkpoint-20") && same("checkpoint-23"));
    let none = home.job("none", 12, "save_strategy: no");
    none.run(&[]).good();
    assert!(checkpoints(&none).is_empty());
}

#[test]
fn an_interrupted_job_has_those_of_the_undisturbed_one() {
    let home = Home::new();
    let whole = home.job("whole", 60, "save_total_limit: 0");
    whole.run(&[]).good();
    let expected = checkpoints(&whole);
    let job = home.job("out", 60, "save_total_limit: 0");
    for (at, signal) in [(12, "KILL"), (33, "INT")] {
        let mut train = job.start(&[]);
        train.until_step(at);
        train.signal(signal);
        train.end();
        // Whatever is there is whole.
        checkpoints(&job);
    }
    job.run(&[]).good();
    assert_eq!(checkpoints(&job), expected);
    for steps in expected {
        let name = format!("checkpoint-{steps}");
        let (found, wanted) = (job.output.join(&name), whole.output.join(&name));
        assert_eq!(weights(&found), weights(&wanted), "{name}");
        assert_eq!(state(&found)["log_history"], state(&wanted)["log_history"]);
    }
    let hidden = job
        .entries()
        .into_iter()
        .filter(|name| name.starts_with(".concord-"));
    let hidden: Vec<String> = hidden.collect();
    assert_eq!(hidden, [".concord-job.json", ".concord-lock"]);
}

#[test]
fn folders_of_others_are_neither_replaced_nor_deleted() {
    let home = Home::new();
    let job = home.job("out", 12, "");
    let mine = job.output.join("checkpoint-5");
    fs::create_dir_all(&mine).unwrap();
    fs::write(mine.join("adapter_model.safetensors"), "mine").unwrap();
    job.run(&[])
        .refused(&["output_dir", "checkpoint-5", "did not put there"]);
    assert_eq!(weights(&mine), b"mine");
    fs::remove_dir_all(&mine).unwrap();
    // Files that are put into one of the job's stay, and so does the folder.
    let job = home.job("out", 400, "save_total_limit: 1");
    let mut train = job.start(&[]);
    train.until(|object| object["event"] == "checkpoint");
    train.signal("INT");
    train.end();
    let first = checkpoints(&job)[0];
    let notes = job.output.join(format!("checkpoint-{first}/notes.txt"));
    fs::write(&notes, "mine").unwrap();
    let ran = job.run(&[]).good();
    assert!(
        ran.stderr.contains("none of the job's and stays"),
        "{}",
        ran.stderr
    );
    assert_eq!(fs::read(&notes).unwrap(), b"mine");
}

#[test]
fn another_job_puts_them_aside_with_the_rest() {
    let home = Home::new();
    let job = home.job("out", 12, "");
    job.run(&[]).good();
    let before = weights(&job.output.join("checkpoint-10"));
    let other = home.job("out", 7, "seed: 1");
    other.run(&[]).refused(&["another job", "--overwrite"]);
    assert_eq!(checkpoints(&job), [10, 12]);
    other.run(&["--overwrite"]).good();
    assert_eq!(checkpoints(&job), [5, 7]);
    assert_ne!(weights(&job.output.join("checkpoint-5")), before);
    assert!(!job.output.join(".concord-replaced").exists());
}
