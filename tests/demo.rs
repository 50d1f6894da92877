//! `concord demo`, as it is first met.
#![cfg(feature = "demo")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn demo(scratch: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_concord"))
        .arg("demo")
        .args(args)
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn events<'a>(objects: &'a [Value], name: &str, act: u64) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["event"] == name && object["act"] == act)
        .collect()
}

/// The key of somebody in an act.
fn key<'a>(objects: &'a [Value], act: u64, name: &str) -> &'a Value {
    let members = events(objects, "members", act)[0]["members"]
        .as_array()
        .unwrap();
    &members
        .iter()
        .find(|member| member["name"] == name)
        .unwrap()["key"]
}

fn assert_result(result: &Value) {
    assert_eq!(result["event"], "result", "{result}");
    let hashes = result["hashes"].as_array().unwrap();
    assert_eq!(hashes.len(), 3);
    assert!(
        hashes.iter().all(|hash| *hash == result["record_digest"]),
        "{result}"
    );
    let hash = result["record_digest"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
    let page = include_str!("../README.md");
    assert!(
        page.contains(hash),
        "the README shows another one than {hash}"
    );
    assert_eq!(result["convicted"], serde_json::json!(["mallory"]));
    assert_eq!(result["verified"], true);
    // The model learnt the language of its data, and knew nothing of it before.
    assert!(
        result["completion"].as_str().unwrap().starts_with("Seven "),
        "{result}"
    );
    assert!(result["sentences"].as_u64().unwrap() >= 1, "{result}");
    assert!(
        !result["completion_before"].as_str().unwrap().contains(". "),
        "{result}"
    );
}

#[test]
fn the_demo_kills_convicts_and_proves() {
    let scratch = tempfile::tempdir().unwrap();
    let kept = scratch.path().join("kept");
    let output = demo(
        scratch.path(),
        &["--json", "--keep", kept.to_str().unwrap()],
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "", "nothing but results");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_result(objects.last().unwrap());

    // Act 2: bob was killed and missed, and no step that was committed had to be done again.
    let lost = events(&objects, "lost", 2);
    assert!(
        lost.iter()
            .any(|event| event["worker"] == *key(&objects, 2, "bob")),
        "{lost:?}"
    );
    assert!(events(&objects, "voided", 2).is_empty());
    // Act 3: mallory was convicted for what she computed, and what she did was done again.
    let convicted = events(&objects, "convicted", 3);
    assert_eq!(convicted.len(), 1);
    assert_eq!(convicted[0]["culprit"], *key(&objects, 3, "mallory"));
    assert_eq!(convicted[0]["offence"], "wrong result");
    assert_eq!(events(&objects, "voided", 3).len(), 1);
    // Nobody else was ever accused.
    assert_eq!(
        objects
            .iter()
            .filter(|object| object["event"] == "convicted")
            .count(),
        1
    );

    // What is kept is there, the same from every act; nothing else is left behind.
    let weights = |act| std::fs::read(kept.join(format!("tuned-{act}/model.safetensors"))).unwrap();
    assert!(
        weights(1) == weights(2) && weights(2) == weights(3),
        "one job, one model"
    );
    assert!(kept.join("tuned-3/proof").is_dir() && kept.join("data.txt").is_file());
    assert_eq!(
        std::fs::read_dir(scratch.path()).unwrap().count(),
        1,
        "only what is kept"
    );
}

#[test]
fn a_folder_that_is_not_new_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("precious"), "").unwrap();
    let output = demo(
        scratch.path(),
        &["--keep", scratch.path().to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("not empty"), "{stderr}");
}

/// Ctrl-C leaves neither processes nor folders.
#[cfg(unix)]
#[test]
fn an_interrupt_cleans_up() {
    use std::io::{BufRead, BufReader};

    let scratch = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["demo", "--json"])
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_step = |line: &String| line.contains("\"event\":\"step\"");
    assert!(
        lines.any(|line| is_step(&line.unwrap())),
        "it ended before its first step"
    );
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(rest.last().unwrap().contains("interrupted"), "{rest:?}");
    assert_eq!(
        std::fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "it leaves no folder"
    );
    // Every process of the pool names its folder on its command line.
    #[cfg(target_os = "linux")]
    assert_eq!(processes_of(scratch.path()), Vec::<String>::new());
}

/// Command lines of processes that name `folder`.
#[cfg(target_os = "linux")]
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let bytes = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}
