//! The pool that `train` starts on this machine: what it lacks, and what becomes of its folder.

use std::fs;
use std::process::Command;

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

/// kill -9 of a process.
fn kill(process: u32) {
    let killed = Command::new("kill")
        .args(["-9", &process.to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()), "it was there");
}

#[test]
fn a_worker_and_a_checker_that_are_killed_are_started_again() {
    let home = Home::new();
    let more = "gradient_accumulation_steps: 4";
    let undisturbed = home.job("undisturbed", 300, more).run(&[]).result();
    let job = home.job("out", 300, more);
    let mut disturbed = Running::start(&["--json", "train", &job.file]);
    for (role, at) in [("worker", 20), ("checker", 60)] {
        disturbed.until_step(at);
        let members = disturbed.members(role);
        assert_eq!(members.len(), 1, "one {role}: {members:?}");
        kill(members[0]);
    }
    let ran = disturbed.end().good();
    for role in ["worker 0", "checker 0"] {
        let told = ran.stderr.lines().find(|line| line.contains(role));
        let told = told.unwrap_or_else(|| panic!("nothing of {role}: {}", ran.stderr));
        assert!(told.contains("is started again"), "{told}");
    }
    assert_eq!(ran.result()["record_digest"], undisturbed["record_digest"]);
}

#[test]
fn nothing_is_left_in_the_folder_for_temporary_files() {
    let home = Home::new();
    let temporary = home.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let job = home.job("out", 200, "");
    let train = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
        command
            .args(["--json", "train", &job.file])
            .env("TMPDIR", &temporary);
        Running::start_command(&mut command)
    };
    for signal in ["KILL", "INT", "TERM"] {
        let mut stopped = train();
        stopped.until(|object| object["event"] == "step");
        stopped.signal(signal);
        stopped.end();
    }
    train().end().good();
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
