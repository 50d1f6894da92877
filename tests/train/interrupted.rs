//! An interrupted training on this machine goes on with the same command.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::jobs::{Home, Job};

/// How often a job is killed at a random step; CONCORD_RESUMES asks for more.
const KILLS: u64 = 2;

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

/// Steps at which nothing is special: other ones each time, and on other plans.
#[test]
fn a_job_that_is_killed_at_random_steps_has_the_hash_of_the_undisturbed_one() {
    let home = Home::new();
    let more = "save_steps: 7\ngradient_accumulation_steps: 4";
    let more = |output: &str| {
        let job = home.job(output, STEPS, "");
        let text = std::fs::read_to_string(&job.file).unwrap();
        std::fs::write(&job.file, text.replace("save_steps: 5", more)).unwrap();
        job
    };
    let undisturbed = more("undisturbed").run(&[]).result();
    let kills = std::env::var("CONCORD_RESUMES").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("a number"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut seed = now.as_nanos() as u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % limit
    };
    let plans: [&[&str]; 3] = [
        &[],
        &["--workers", "local:2"],
        &["--workers", "local:2", "--plan", "2x1"],
    ];
    let signals = ["KILL", "INT", "TERM"];
    let job = more("out");
    let (mut at, share) = (0, u64::from(STEPS) / (kills + 1));
    for _ in 0..kills {
        at += 1 + below(share);
        let (signal, plan) = (signals[below(3) as usize], plans[below(3) as usize]);
        println!("{signal} in step {at}, with {plan:?}");
        let mut train = job.start(plan);
        train.until_step(at as u32 - 1);
        train.signal(signal);
        assert_eq!(train.end().count("result"), 0);
    }
    let result = job.run(plans[below(3) as usize]).result();
    assert_eq!(result["record_digest"], undisturbed["record_digest"]);
    job.log_is_whole(u64::from(STEPS), &result);
}

/// What one plan has done, another one goes on with: more or fewer workers, another cut.
#[test]
fn a_killed_job_goes_on_under_another_plan_to_the_same_hash() {
    let home = Home::new();
    let more = "gradient_accumulation_steps: 4";
    let undisturbed = home.job("undisturbed", STEPS, more).run(&[]).result();
    let one: &[&str] = &[];
    let replicas = &["--workers", "local:2", "--plan", "1x2"][..];
    let stages = &["--workers", "local:2", "--plan", "2x1"][..];
    for order in [[one, stages, replicas], [replicas, one, stages]] {
        let job = home.job(&format!("out-{}", order[0].len()), STEPS, more);
        for (turn, plan) in (0..).zip(&order[..2]) {
            println!("killed in turn {turn} with {plan:?}");
            let mut train = job.start(plan);
            train.until_step(11 + 40 * turn);
            train.signal("KILL");
            assert_eq!(train.end().count("result"), 0);
        }
        let last = job.run(order[2]).good();
        assert!(last.last_start() >= 45, "{}", last.last_start());
        let planned = last.objects.iter().rev();
        let planned = { planned }.find(|object| object["event"] == "planned");
        let planned = planned.expect("a plan");
        let cut = format!("{}x{}", planned["stages"], planned["replicas"]);
        assert_eq!(Some(&*cut), order[2].last().copied());
        let result = last.result();
        assert_eq!(result["record_digest"], undisturbed["record_digest"]);
        job.log_is_whole(u64::from(STEPS), &result);
    }
}

#[test]
fn more_steps_are_another_job_and_say_so() {
    let home = Home::new();
    let done = home.job("out", 3, "").run(&[]).result();
    let longer = home.job("out", 5, "");
    longer.run(&[]).refused(&[
        "the result of this job with another number of steps",
        "--overwrite",
        "initial_adapter",
    ]);
    home.job("out", 3, "seed: 5")
        .run(&[])
        .refused(&["of another job"]);
    let anew = longer.run(&["--overwrite"]).result();
    let undisturbed = home.job("other", 5, "").run(&[]).result();
    assert_eq!(anew["record_digest"], undisturbed["record_digest"]);
    assert_ne!(anew["record_digest"], done["record_digest"]);
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
