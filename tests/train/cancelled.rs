//! A job that was cancelled, and is submitted again.

use crate::jobs::{Home, Job};
use crate::running::{Ran, Running, run};

const STEPS: u32 = 100;

/// A coordinator with a worker and a checker.
struct Pool {
    url: String,
    // In the order in which they are dropped.
    _members: Vec<Running>,
    _coordinator: Running,
}

impl Pool {
    fn start(home: &Home) -> Self {
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
        let mut coordinator = Running::start(&listen);
        let listening = coordinator.until(|object| object["event"] == "listening");
        let url = listening["url"].as_str().unwrap().to_string();
        let member = |role: &str| {
            let dir = home.path(role);
            let dir = dir.to_str().unwrap();
            let command = [
                "--json",
                role,
                "--threads",
                "1",
                "--coordinator",
                &url,
                "--dir",
                dir,
            ];
            let mut member = Running::start(&command);
            member.until(|object| object["event"] == "started");
            member
        };
        Self {
            _members: vec![member("worker"), member("checker")],
            url,
            _coordinator: coordinator,
        }
    }

    fn train(&self, job: &Job) -> Running {
        let command = ["--json", "train", &job.file, "--coordinator", &self.url];
        // Every piece of work is audited: whenever the job is cancelled, some audits are still to
        // come.
        let audits = ["--min-checkers", "1", "--audit-rate", "1"];
        Running::start(&[&command[..], &audits].concat())
    }

    fn jobs(&self, command: &[&str]) -> Ran {
        let jobs = ["--json", "jobs", "--coordinator", &self.url];
        run(&[&jobs, command].concat())
    }
}

fn id(train: &mut Running) -> String {
    let submitted = train.until(|object| object["event"] == "submitted");
    submitted["job"].as_str().unwrap().to_string()
}

fn states(jobs: &Ran) -> Vec<(&str, &str)> {
    jobs.objects
        .iter()
        .map(|job| {
            (
                job["name"].as_str().unwrap(),
                job["state"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_same_command_goes_on_with_a_cancelled_job() {
    let home = Home::new();
    let undisturbed = home.job("undisturbed", STEPS, "").run(&[]).result();
    let pool = Pool::start(&home);
    let job = home.job("out", STEPS, "");
    for round in 0..2 {
        let mut train = pool.train(&job);
        let id = id(&mut train);
        // The events of the rounds before are told again.
        train.until_step(25 + 10 * round);
        pool.jobs(&["cancel", &id]).good();
        let cancelled = train.end();
        assert_eq!(cancelled.code, Some(1), "{cancelled:#?}");
        assert!(
            cancelled.stderr.contains("the job was cancelled"),
            "{cancelled:#?}"
        );
        let listed = pool.jobs(&[]).good();
        assert_eq!(states(&listed)[0].1, "cancelled");
        let watched = pool.jobs(&["watch", &id]);
        assert_eq!(watched.code, Some(1), "{watched:#?}");
    }
    let done = pool.train(&job).end();
    let start = done.last_start();
    assert!(start >= 5, "it goes on from a checkpoint, not from {start}");
    let result = done.result();
    assert_eq!(result["record_digest"], undisturbed["record_digest"]);
    job.log_is_whole(u64::from(STEPS), &result);
    // Its proof holds, and nothing was left unaudited.
    assert_eq!(result["inconclusive"], 0, "{result}");
    let proof = job.output.join("proof");
    let ran = run(&[
        "verify",
        proof.to_str().unwrap(),
        "--model",
        job.output.to_str().unwrap(),
    ]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("complete, not proven"), "{ran:#?}");
    let id = result["job"].as_str().unwrap();
    let watched = pool.jobs(&["watch", id]).good();
    assert_eq!(watched.count("cancelled"), 2, "what happened is told");
    assert_eq!(watched.count("completed"), 1);
}

#[test]
fn a_job_that_is_submitted_again_waits_behind_the_others() {
    let home = Home::new();
    let pool = Pool::start(&home);
    let first = home.job("first", 400, "");
    let mut train = pool.train(&first);
    let first_id = id(&mut train);
    train.until_step(3);
    pool.jobs(&["cancel", &first_id]).good();
    assert_eq!(train.end().code, Some(1));
    let second = home.job("second", 60, "seed: 7");
    let mut other = pool.train(&second);
    other.until_step(2);
    // It comes back while the other one has the pool.
    let mut again = pool.train(&first);
    id(&mut again);
    let lost = |ran: &Ran| ran.count("lost") + ran.count("voided") + ran.count("planned");
    let other = other.end();
    assert_eq!(
        lost(&other),
        1,
        "one plan from its first step to its last: {other:#?}"
    );
    other.result();
    again.until_step(4);
    pool.jobs(&["cancel", &first_id]).good();
    assert_eq!(again.end().code, Some(1));
}
