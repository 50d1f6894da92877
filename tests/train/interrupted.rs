//! An interrupted training on this machine goes on with the same command.

use crate::jobs::{Home, Job};

const STEPS: u32 = 120;

/// Runs the job until a step after the first checkpoint, and interrupts it there.
fn until_interrupted(job: &Job, signal: &str) -> crate::running::Ran {
    let mut train = job.start(&[]);
    train.until_step(11);
    train.signal(signal);
    train.end()
}

#[test]
fn the_same_command_goes_on_to_the_same_hash() {
    let home = Home::new();
    let undisturbed = home.job("undisturbed", STEPS, "").run(&[]).result();
    let hash = &undisturbed["record_digest"];
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        println!("{signal}");
        let job = home.job(&format!("out-{signal}"), STEPS, "");
        let stopped = until_interrupted(&job, signal);
        assert_eq!(stopped.code, code, "{stopped:#?}");
        assert!(
            stopped.count("result") == 0,
            "it was to have many steps left"
        );
        let names = job.entries();
        assert!(names.contains(&".concord-state".to_string()), "{names:?}");
        assert!(
            !names.contains(&"adapter_config.json".to_string()),
            "{names:?}"
        );
        let words = stopped
            .objects
            .last()
            .map(|last| last["reason"].to_string());
        let words = words.unwrap_or_default();
        if let Some(code) = code {
            let last = stopped.objects.last().expect("what becomes of the job");
            assert_eq!(
                (&last["event"], &last["exit_code"]),
                (&"stopped".into(), &code.into())
            );
            assert!(words.contains("stopped after step "), "{words}");
            // Its workers have stored what was committed.
            assert!(
                words.contains("the same command goes on from there"),
                "{words}"
            );
            assert!(!words.contains("the job goes on"), "{words}");
        }

        let resumed = job.run(&[]).good();
        if code.is_some() {
            assert_eq!(resumed.count("lost"), 0, "ended in order, it lost nobody");
        }
        let start = resumed.last_start();
        assert!(start >= 5, "it goes on from a checkpoint, not from {start}");
        let step = format!("with step {}", start + 1);
        assert!(
            code.is_none() || words.contains(&step),
            "{words}, and it was {step}"
        );
        let result = resumed.result();
        assert_eq!(&result["record_digest"], hash, "{signal}");
        job.log_is_whole(u64::from(STEPS), &result);
        let names = job.entries();
        assert!(!names.contains(&".concord-state".to_string()), "{names:?}");
    }
}

#[test]
fn what_is_done_is_told_again() {
    let home = Home::new();
    let job = home.job("out", 3, "");
    let first = job.run(&[]).result();
    let before = std::fs::metadata(job.output.join("adapter_model.safetensors")).unwrap();
    let again = job.run(&[]).good();
    assert_eq!(again.count("step"), 0, "nothing is computed");
    let again = again.result();
    assert_eq!(again["already_done"], true);
    for key in [
        "job",
        "record_digest",
        "steps",
        "audits",
        "output_dir",
        "bundle",
    ] {
        assert_eq!(again[key], first[key], "{key}");
    }
    let after = std::fs::metadata(job.output.join("adapter_model.safetensors")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    // Unless the result has changed since.
    std::fs::remove_file(job.output.join("adapter_model.safetensors")).unwrap();
    job.run(&[]).refused(&["has changed since", "--overwrite"]);
    let redone = job.run(&["--overwrite"]).result();
    assert_eq!(redone["record_digest"], first["record_digest"]);
}

#[test]
fn the_job_of_another_coordinator_goes_on_and_the_status_says_that_it_is_not_done() {
    let home = Home::new();
    let data = home.path("coordinator");
    let data = data.to_str().unwrap();
    let listen = [
        "--json",
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data,
    ];
    let mut coordinator = crate::running::Running::start(&listen);
    let listening = coordinator.until(|object| object["event"] == "listening");
    let url = listening["url"].as_str().unwrap();
    let job = home.job("out", 3, "");
    let command = ["--json", "train", &job.file, "--coordinator", url];
    let mut train = crate::running::Running::start(&command);
    train.until(|object| object["event"] == "waiting");
    train.signal("INT");
    let stopped = train.end();
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    assert!(stopped.stderr.contains("the job goes on") && stopped.stderr.contains(url));
    assert!(
        stopped.stderr.contains("jobs --coordinator"),
        "{stopped:#?}"
    );
}
