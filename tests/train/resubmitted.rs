//! A job that exists already, submitted again with a plan that it cannot have.

use serde_json::Value;

use crate::jobs::Home;
use crate::running::{Running, run};

/// Plans that no pool could follow, and what is said of them. The model has two layers.
const IMPOSSIBLE: [(&[&str], &str); 3] = [
    (&["--plan", "3x1"], "--plan: 3 stages for 2 layers"),
    (&["--plan", "1x3"], "--plan: 3 replicas for 2 microbatches"),
    (
        &["--plan", "1x2", "--shares", "2,1"],
        "--shares: the shares [2, 1] do not deal 2 microbatches to 2 replicas",
    ),
];

const MORE: &str = "gradient_accumulation_steps: 2";

#[test]
fn a_plan_that_the_job_cannot_have_is_refused_whether_or_not_it_is_done() {
    let home = Home::new();
    let job = home.job("out", 3, MORE);
    let refuse_all = || {
        for (options, words) in IMPOSSIBLE {
            let ran = job.run(&[&["--workers", "local:3"], options].concat());
            ran.refused(&[words]);
        }
    };
    refuse_all();
    job.run(&[]).good();
    refuse_all();
    let again = job.run(&["--workers", "local:2", "--plan", "2x1"]).good();
    assert_eq!(again.result()["already_done"], true);
}

#[test]
fn a_job_of_a_coordinator_goes_on_under_its_plan_where_another_is_refused() {
    let home = Home::new();
    let data = home.path("coordinator");
    let listen = [
        "--json",
        "coordinator",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ];
    let mut coordinator = Running::start(&[&listen[..], &[data.to_str().unwrap()]].concat());
    let listening = coordinator.until(|object| object["event"] == "listening");
    let url = listening["url"].as_str().unwrap();
    let job = home.job("out", 3, MORE);
    let train = ["--json", "train", &job.file, "--coordinator", url];
    let mut first = Running::start(&train);
    first.until(|object| object["event"] == "submitted");
    // The same job into another folder: the first one is in use.
    let again = home.job("other", 3, MORE);
    let again = ["--json", "train", &again.file, "--coordinator", url];
    for (options, words) in IMPOSSIBLE {
        run(&[&again[..], options].concat()).refused(&[words]);
    }
    let jobs = run(&["--json", "jobs", "--coordinator", url]).good();
    let states: Vec<&Value> = jobs
        .objects
        .iter()
        .filter(|o| o["event"] == "job")
        .collect();
    assert_eq!(states.len(), 1, "{jobs:#?}");
    assert!(jobs.stdout.contains("waiting"), "{jobs:#?}");
    first.signal("INT");
    assert_eq!(first.end().code, Some(130));
}
