//! Commands that ask a coordinator, and what they say where there is none.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{arg, concord};
use crate::tiny_model::TinyModel;

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("concord://{}", listener.local_addr().unwrap())
}

#[test]
fn a_coordinator_out_of_reach_is_named() {
    let url = nobody();
    for command in [
        &["status"][..],
        &["jobs"],
        &["jobs", "watch", "3f"],
        &["jobs", "cancel", "3f"],
    ] {
        let ran = concord([command, &["--coordinator", &url]].concat());
        ran.refused(&["no coordinator at", &url, "concord coordinator"]);
    }
}

#[test]
fn an_address_that_is_none() {
    concord(["status", "--coordinator", "not an address"]).refused(&["not an address"]);
}

#[test]
fn errors_are_objects_too() {
    let url = nobody();
    let ran = concord(["jobs", "--coordinator", &url, "--json"]);
    assert_eq!(ran.code, Some(1));
    let objects = ran.objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["event"], "error");
    assert!(objects[0]["error"].as_str().unwrap().contains(&url));
}

#[test]
fn a_port_in_use_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ran = concord([
        "coordinator",
        "--listen",
        &address,
        "--data-dir",
        arg(&data),
    ]);
    ran.refused(&[&address]);
}

#[test]
fn a_folder_in_use_is_named_with_the_option_for_another_one() {
    let model = TinyModel::new();
    let _coordinator = Coordinator::start(&model);
    let data = model.file("coordinator");
    let listen = ["coordinator", "--listen", "127.0.0.1:0", "--data-dir"];
    let second = concord([&listen[..], &[arg(&data)]].concat());
    second.refused(&["is in use by another coordinator", "--data-dir"]);
}

#[test]
fn members_say_who_they_are_and_where() {
    let model = TinyModel::new();
    let coordinator = Coordinator::start(&model);
    for role in ["worker", "checker"] {
        let dir = model.file(role);
        let mut member = Command::new(env!("CARGO_BIN_EXE_concord"))
            .args([
                role,
                "--coordinator",
                &coordinator.url,
                "--json",
                "--dir",
                arg(&dir),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(member.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        member.kill().unwrap();
        member.wait().unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(started["event"], "started", "{started}");
        assert_eq!(started[role].as_str().map(str::len), Some(64), "{started}");
        let address = started["address"].as_str();
        match role {
            "worker" => assert!(
                address.unwrap().starts_with("concord://127.0.0.1:"),
                "{started}"
            ),
            _ => assert_eq!(address, None),
        }
    }
}

/// A coordinator of the test's own, without workers.
struct Coordinator {
    process: Child,
    url: String,
}

impl Coordinator {
    fn start(model: &TinyModel) -> Self {
        let data = model.file("coordinator");
        let mut process = Command::new(env!("CARGO_BIN_EXE_concord"))
            .args([
                "coordinator",
                "--listen",
                "127.0.0.1:0",
                "--json",
                "--data-dir",
                arg(&data),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        Self {
            process,
            url: listening["url"].as_str().unwrap().to_string(),
        }
    }

    fn ask(&self, args: &[&str]) -> crate::program::Ran {
        concord([args, &["--coordinator", &self.url]].concat())
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Submits a job for which there are no workers.
fn submit(model: &TinyModel, url: &str) -> Child {
    let (dir, data) = (model.dir().display(), model.file("data.txt"));
    fs::write(&data, "w3 w4 w5 ".repeat(20)).unwrap();
    let job = model.file("waits.yaml");
    let text = format!(
        "{{base_model: {dir}, datasets: [{{path: {}, type: text}}], max_steps: 3,\n\
         sequence_len: 16, learning_rate: 1e-2, output_dir: {dir}/out}}",
        data.display()
    );
    fs::write(&job, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["train", arg(&job), "--coordinator", url, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_job_is_listed_found_by_a_prefix_and_cancelled() {
    let model = TinyModel::new();
    let coordinator = Coordinator::start(&model);
    let status = coordinator.ask(&["status"]).good().stdout;
    assert!(
        status.contains("nobody has joined") && status.contains("no jobs"),
        "{status}"
    );
    assert_eq!(
        coordinator.ask(&["jobs", "list"]).good().stdout,
        "no jobs\n"
    );
    coordinator
        .ask(&["jobs", "cancel", "3f"])
        .refused(&["no job '3f'", "has no jobs"]);

    let mut train = submit(&model, &coordinator.url);
    let deadline = Instant::now() + Duration::from_secs(30);
    let job = loop {
        let jobs = coordinator.ask(&["jobs", "--json"]).good().objects();
        if let Some(job) = jobs.into_iter().next() {
            break job;
        }
        assert!(Instant::now() < deadline, "the job was never listed");
    };
    assert_eq!(
        (&job["event"], &job["name"]),
        (&"job".into(), &"waits".into())
    );
    assert_eq!(
        (&job["state"], &job["steps"]),
        (&"waiting".into(), &3.into())
    );
    let id = job["job"].as_str().unwrap();
    let listed = coordinator.ask(&["status"]).good().stdout;
    assert!(
        listed.contains(&id[..8]) && listed.contains("waits"),
        "{listed}"
    );

    let other = if id.starts_with('0') { "1" } else { "0" };
    coordinator
        .ask(&["jobs", "cancel", other])
        .refused(&["no job", &id[..8]]);
    coordinator.ask(&["jobs", "cancel", &id[..6]]).good();
    assert_eq!(
        train.wait().unwrap().code(),
        Some(1),
        "the job was cancelled under it"
    );
    let jobs = coordinator.ask(&["jobs", "--json"]).good().objects();
    assert_eq!(jobs[0]["state"], "cancelled");
    let watched = coordinator.ask(&["jobs", "watch", &id[..6]]);
    assert_eq!(watched.code, Some(1));
    assert!(
        watched.stderr.contains("the job was cancelled"),
        "{watched:?}"
    );
}
