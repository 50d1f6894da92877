//! Workers of this machine that are killed, and how a program ends: in order, with nothing left.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::local::{Local, signal, until};
use crate::pool::small_job;
use crate::server::{stream, tiny};

/// Scalar code: slow enough that a signal comes in the middle of an answer.
const SLOW: [&str; 4] = ["--device", "reference", "--workers", "1"];

/// The longest time for an end that waits for nothing.
const SOON: Duration = Duration::from_secs(20);

fn request(seed: u64, tokens: u32) -> Value {
    json!({ "prompt": "Once upon a time", "max_tokens": tokens, "seed": seed,
        "temperature": 0.9, "logit_bias": { "2": -100 }, "stream": true })
}

/// The text of a stream that ends well.
fn text(url: &str, body: &Value) -> String {
    let mut text = String::new();
    for (_, chunk) in stream(&format!("{url}/v1/completions"), body) {
        assert!(chunk["error"].is_null(), "{chunk}");
        text += chunk["choices"][0]["text"].as_str().unwrap_or_default();
    }
    text
}

/// Status, Retry-After and body of an answer.
fn ask(url: &str, body: Option<&Value>) -> (u16, Option<String>, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.timeout_global(Some(SOON)).build().new_agent();
    let sent = match body {
        Some(body) => agent.post(url).send_json(body),
        None => agent.get(url).call(),
    };
    let mut response = sent.unwrap();
    let retry = response.headers().get("retry-after");
    let retry = retry.map(|value| value.to_str().unwrap().to_string());
    let body = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), retry, body)
}

#[test]
fn a_killed_worker_is_started_again_and_its_streams_go_on() {
    let Some((model, _)) = tiny() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Local::serve(dir.path(), &model, &SLOW);
    server.ready();
    let undisturbed = text(&server.url, &request(1, 450));
    let victim = server.members()[0];
    let disturbed = std::thread::scope(|scope| {
        let task = scope.spawn(|| text(&server.url, &request(1, 450)));
        server.has_drawn(455);
        signal(victim, "KILL");
        // Refusals say why, and what is done.
        let health = format!("{}/health", server.url);
        until("the reason", || {
            let (status, _, body) = ask(&health, None);
            status == 503 && body.contains("worker 0 was killed by signal 9")
        });
        task.join().unwrap()
    });
    assert_eq!(disturbed, undisturbed);
    server.ready();
    let members = server.members();
    assert!(members.len() == 1 && members[0] != victim, "{members:?}");
    let words = server.words();
    for part in ["was it out of memory?", "is started again in 0.5 s"] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
}

/// A worker that cannot work ends at once, each time: the server says so and ends.
#[test]
fn a_server_whose_workers_cannot_start_ends_with_the_reason() {
    let Some((model, _)) = tiny() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut server = Local::serve(dir.path(), &model, &["--device", "cuda:99"]);
    assert!(!server.ends().success());
    let words = server.words();
    for part in [
        "worker 0 ended with status 1",
        "is started again in 4 s",
        "no worker of this machine is left",
        "5 times in a row",
    ] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    assert_eq!(server.temporary(), [""; 0]);
}

#[test]
fn a_job_survives_the_death_of_its_only_worker_and_of_its_checker() {
    let Some(shared) = crate::pool::shared() else {
        return;
    };
    let mut hashes = Vec::new();
    for killed in [None, Some(0), Some(1)] {
        let dir = tempfile::tempdir().unwrap();
        let job = small_job(dir.path(), &shared, 60, 3, "");
        let job = job.to_str().unwrap();
        let train = Local::spawn(dir.path(), &["train", job, "--workers", "local:1"]);
        if let Some(killed) = killed {
            train.until(|object| object["event"] == "step" && object["step"] == 5);
            let mut members = train.members();
            // In the order in which they were started.
            members.sort_unstable();
            assert_eq!(members.len(), 2);
            signal(members[killed], "KILL");
        }
        let result = train.until(|object| {
            assert_ne!(object["event"], "error", "{object}");
            object["event"] == "result"
        });
        hashes.push(result["record_digest"].clone());
        if killed.is_some() {
            let words = train.words();
            assert!(words.contains("was killed by signal 9"), "{words}");
        }
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn sigterm_lets_answers_end_and_leaves_nothing() {
    let Some((model, _)) = tiny() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut server = Local::serve(dir.path(), &model, &SLOW);
    server.ready();
    assert_eq!(server.temporary().len(), 1);
    let alone: Vec<String> = (0..4)
        .map(|seed| text(&server.url, &request(seed, 450)))
        .collect();
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let url = server.url.clone();
                    move || text(&url, &request(seed, 450))
                })
            })
            .collect();
        server.has_active(4);
        server.signal("TERM");
        // A request that came before the signal was seen would be a fifth answer.
        until("the start of the end", || {
            server.words().contains("SIGTERM")
        });
        // Another request is refused, and told when to come back.
        let url = format!("{}/v1/completions", server.url);
        let refused = ask(&url, Some(&json!({ "prompt": "x", "max_tokens": 1 })));
        assert!(refused.0 == 503 && refused.1.is_some(), "{refused:?}");
        let drained = tasks.into_iter().map(|task| task.join().unwrap());
        assert_eq!(drained.collect::<Vec<_>>(), alone);
    });
    assert!(server.ends().success(), "{}", server.words());
    let words = server.words();
    assert!(words.contains("SIGTERM: draining: 4 answers "), "{words}");
    // Its workers are ended on purpose: none is reported as lost.
    assert!(!words.contains("a stage is lost"), "{words}");
    assert_eq!(server.temporary(), [""; 0]);
    server.is_left_alone();
}

/// Reads a stream to its end, however it ends.
fn read(url: &str, body: &Value) {
    let Ok(response) = ureq::post(format!("{url}/v1/completions")).send_json(body) else {
        return;
    };
    // It may be cut anywhere.
    let _ = response
        .into_body()
        .into_reader()
        .read_to_end(&mut Vec::new());
}

#[test]
fn a_second_signal_and_the_end_of_patience_cut_answers_and_say_so() {
    let Some((model, _)) = tiny() else { return };
    for (options, signals) in [
        (&["--drain-seconds", "600"][..], &["TERM", "INT"][..]),
        (&["--drain-seconds", "0"], &["INT"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Local::serve(dir.path(), &model, &[&SLOW[..], options].concat());
        server.ready();
        std::thread::scope(|scope| {
            let url = server.url.clone();
            scope.spawn(move || read(&url, &request(1, 450)));
            server.has_drawn(3);
            for name in signals {
                server.signal(name);
                // A signal right after another would count as the same request to end.
                std::thread::sleep(Duration::from_millis(200));
                until("the word", || {
                    server.words().contains("draining: 1 answer ")
                });
            }
            let start = Instant::now();
            assert!(!server.ends().success());
            assert!(start.elapsed() < SOON);
        });
        assert!(
            server.words().contains("1 answer cut"),
            "{}",
            server.words()
        );
        assert_eq!(server.temporary(), [""; 0]);
        server.is_left_alone();
    }
}

/// At any time before the first request, too, a signal ends the program soon, and nothing is left.
#[test]
fn a_signal_while_it_starts_ends_it_and_leaves_nothing() {
    let Some((model, _)) = tiny() else { return };
    for millis in [0, 5, 10, 20, 40, 80, 160, 320] {
        let dir = tempfile::tempdir().unwrap();
        let model = model.to_str().unwrap();
        let args = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "2",
            "--model",
            model,
        ];
        let mut server = Local::spawn(dir.path(), &args);
        std::thread::sleep(Duration::from_millis(millis));
        let start = Instant::now();
        server.signal("TERM");
        let status = server.ends();
        assert!(start.elapsed() < SOON, "{millis} ms");
        // Killed before it can handle a signal, stopped before it serves, or drained.
        let code = status.code();
        assert!(
            matches!(code, None | Some(143 | 0)),
            "{millis} ms: {status}"
        );
        let says = server
            .words()
            .contains("SIGTERM: stopped before anything was served");
        assert_eq!(says, code == Some(143), "{millis} ms: {}", server.words());
        server.is_left_alone();
        assert_eq!(
            server.temporary(),
            [""; 0],
            "{millis} ms: {}",
            server.words()
        );
    }
}

#[test]
fn what_a_killed_server_left_is_removed_by_the_next_one() {
    let Some((model, _)) = tiny() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut killed = Local::serve(dir.path(), &model, &[]);
    let left = killed.temporary();
    assert_eq!(left.len(), 1);
    killed.signal("KILL");
    killed.ends();
    // Its workers notice, and end.
    killed.is_left_alone();
    assert_eq!(killed.temporary(), left);
    let mut next = Local::serve(dir.path(), &model, &[]);
    let own = next.temporary();
    assert!(own.len() == 1 && own != left, "{own:?} after {left:?}");
    // The folder of a running server is not touched.
    let mut third = Local::serve(dir.path(), &model, &["--workers", "0"]);
    assert_eq!(third.temporary().len(), 2);
    next.signal("INT");
    assert!(next.ends().success(), "{}", next.words());
    third.signal("TERM");
    assert!(third.ends().success(), "{}", third.words());
    assert_eq!(third.temporary(), [""; 0]);
}
