//! The pool that `train` starts on this machine: what it lacks, and what becomes of its folder.

use std::fs;

use crate::jobs::{Home, Job};
use crate::running::{Ran, Running, run};

fn train(job: &Job, more: &[&str]) -> Ran {
    run(&[&["--json", "train", &job.file], more].concat())
}

/// A checker that cannot start ends at once, each time; the job needs it for its first step.
#[test]
fn a_job_whose_checkers_cannot_start_ends_with_the_reason() {
    let home = Home::new();
    let job = home.job("out", 3, "");
    let state = home.path("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("checker-0"), "no folder").unwrap();
    let state = ["--pool-dir", state.to_str().unwrap()];
    train(&job, &state).refused(&[
        "no checker of this machine is left: checker 0 ended with status 1",
        "5 times in a row",
        "the job waits for 1 checker before its first step",
        "--checkers 0",
    ]);
    // The same job with other options does not wait as the earlier options asked.
    let done = train(&job, &[&state[..], &["--min-checkers", "0"]].concat());
    let result = done.result();
    assert_eq!(result["audits"], 0, "{result}");
}

#[test]
fn what_a_pool_on_this_machine_can_never_have_is_refused() {
    let home = Home::new();
    let job = home.job("out", 3, "");
    let cases: [(&[&str], &str); 4] = [
        (&["--min-workers", "2"], "--workers local:2"),
        (&["--min-checkers", "2"], "--checkers 2"),
        (&["--plan", "2x2"], "takes 4 workers"),
        (&["--plan", "1x3", "--workers", "local:2"], "has 2 workers"),
    ];
    for (options, words) in cases {
        train(&job, options).refused(&[words]);
    }
    assert!(!job.output.exists(), "nothing was begun");
}

#[test]
fn a_job_whose_folder_of_state_is_lost_tells_its_steps_again() {
    let home = Home::new();
    let job = home.job("out", 60, "");
    let state = home.path("state");
    let command = [
        "train",
        &job.file,
        "--checkers",
        "0",
        "--pool-dir",
        state.to_str().unwrap(),
    ];
    let mut first = Running::start(&[&["--json"], &command[..]].concat());
    first.until_step(11);
    first.signal("KILL");
    first.end();
    fs::remove_dir_all(&state).unwrap();
    let again = run(&command);
    assert_eq!(again.code, Some(0), "{again:#?}");
    for words in ["plan 1 ", "1 stage x 1 replica", "\n 1/60  loss "] {
        assert!(again.stderr.contains(words), "no {words:?} in {again:#?}");
    }
    assert!(!again.stderr.contains("were done before"), "{again:#?}");
    let log = job.log();
    assert_eq!((log.len(), &log[0]["step"]), (61, &1.into()));
    assert!(again.stdout.contains("done: 60 steps"), "{again:#?}");
}
