//! Stages that die in the middle of answers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, mixed_request, stream, tiny};

const STREAMS: u64 = 32;
const STAGES: usize = 3;
/// The most seconds from the notice of a loss until tokens come again, if a worker stands by.
const RESUME: f64 = 2.0;

fn request(number: u64) -> Value {
    let mut request = mixed_request(number, &[]);
    request["max_tokens"] = json!(270 + number % 20);
    request["stream"] = json!(true);
    request["logit_bias"] = json!({ "2": -100 });
    request
}

/// Text and logprobs of a stream, however it is cut into chunks.
fn answer(chunks: &[(Duration, Value)]) -> Value {
    let mut text = String::new();
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    let mut finish = Value::Null;
    for (_, chunk) in chunks {
        assert!(chunk["error"].is_null(), "{chunk}");
        let Some(choice) = chunk["choices"].get(0) else {
            continue;
        };
        text.push_str(choice["text"].as_str().unwrap_or_default());
        let list = |key: &str| {
            choice["logprobs"][key]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        tokens.extend(list("tokens"));
        logprobs.extend(list("token_logprobs"));
        if !choice["finish_reason"].is_null() {
            assert!(finish.is_null(), "two finish reasons");
            finish = choice["finish_reason"].clone();
        }
    }
    assert!(!finish.is_null(), "no finish reason");
    json!([text, tokens, logprobs, finish])
}

fn all_streams(server: &Server, meanwhile: impl FnOnce()) -> Vec<Value> {
    let url = format!("{}/v1/completions", server.url);
    std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..STREAMS)
            .map(|number| {
                let url = url.clone();
                scope.spawn(move || answer(&stream(&url, &request(number))))
            })
            .collect();
        meanwhile();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    })
}

/// kill -9 of each stage in turn during 32 streams, with one worker that stands by: all streams
/// complete, with the tokens of an undisturbed run.
#[test]
fn streams_survive_the_death_of_any_stage() {
    let Some((model, _)) = tiny() else { return };
    let undisturbed = all_streams(&Server::with_stages(&model, STAGES, &[]), || {});
    for stage in 0..STAGES {
        let mut server = Server::with_stages(&model, STAGES, &[]);
        server.join("worker", &["--threads", "1"]);
        stands_by(&server);
        let victim = server.holders()[stage];
        let mut victim = std::mem::replace(
            &mut server.workers[victim],
            crate::pool::Process::start(&mut std::process::Command::new("true")),
        );
        let answers = all_streams(&server, || {
            under_way(&server);
            victim.kill();
        });
        assert_eq!(answers, undisturbed, "stage {stage} killed");
        let view = server.view();
        assert!(
            view["failovers"].as_u64().unwrap() >= 1,
            "it was killed too late: {view}"
        );
        let resumed = view["last_resume_seconds"].as_f64().unwrap();
        println!("stage {stage} of {STAGES} killed: tokens again after {resumed:.3} s");
        assert!(resumed <= RESUME, "{resumed} s");
    }
}

/// Waits until many streams have tokens.
fn under_way(server: &Server) {
    let start = Instant::now();
    while server.view()["pipelines"][0]["tokens"]
        .as_u64()
        .unwrap_or(0)
        < 5 * STREAMS
    {
        assert!(start.elapsed() < PATIENCE, "no tokens");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a worker stands by.
fn stands_by(server: &Server) {
    let start = Instant::now();
    loop {
        let view = server.view();
        let workers = view["workers"].as_array().unwrap();
        let standing = |worker: &Value| worker["doing"].as_str().unwrap().contains("stands by");
        if workers.iter().any(standing) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "nobody stands by: {view}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// If nobody can take over, a stream says so, and how many tokens it has used: it never ends
/// silently.
#[test]
fn a_stream_that_cannot_go_on_says_so() {
    let Some((model, _)) = tiny() else { return };
    let mut server = Server::start(&model, &["--stages", "1", "--resume-within", "1"]);
    // Scalar code: slow enough to be killed in the middle of the answer.
    server.join("worker", &["--device", "reference"]);
    server.ready();
    let url = format!("{}/v1/completions", server.url);
    let chunks = std::thread::scope(|scope| {
        let task = scope.spawn(|| stream_to_any_end(&url, &request(1)));
        while server.view()["pipelines"][0]["tokens"]
            .as_u64()
            .unwrap_or(0)
            < 5
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut victim = server.workers.remove(0);
        victim.kill();
        task.join().unwrap()
    });
    let last = chunks.last().unwrap();
    assert!(last["error"]["message"].as_str().is_some(), "{last}");
    assert!(
        last["usage"]["completion_tokens"].as_u64().unwrap() >= 5,
        "{last}"
    );
}

/// The events of a stream, whether it ends well or not.
fn stream_to_any_end(url: &str, body: &Value) -> Vec<Value> {
    use std::io::BufRead;
    let response = ureq::post(url).send_json(body).unwrap();
    let lines = std::io::BufReader::new(response.into_body().into_reader()).lines();
    let data = lines.map_while(Result::ok).filter_map(|line| {
        let data = line.strip_prefix("data: ")?.to_string();
        serde_json::from_str(&data).ok()
    });
    data.collect()
}
