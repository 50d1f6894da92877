//! What an answer does not depend on: who else asks, and how many machines compute.

use std::time::Duration;

use serde_json::Value;

use crate::server::{Server, essence, good, mixed_request, tiny};

const REQUESTS: u64 = 64;

fn adapters(folder: &std::path::Path) -> Vec<String> {
    let initial = folder.parent().unwrap().join("initial");
    vec![
        "--adapter".to_string(),
        format!("poet={}", folder.display()),
        "--adapter".to_string(),
        format!("plain={}", initial.display()),
    ]
}

/// All requests, sent at random times by as many clients, get what each gets alone: text, tokens
/// and logprobs to the last digit, over one, two and three stages.
#[test]
fn sixty_four_requests_at_random_times_get_what_each_gets_alone() {
    let Some((model, adapter)) = tiny() else {
        return;
    };
    let options = adapters(&adapter);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let requests: Vec<Value> = (0..REQUESTS)
        .map(|n| mixed_request(n, &["poet", "plain"]))
        .collect();
    let alone: Vec<Value> = {
        let server = Server::with_stages(&model, 1, &options);
        let ask = |request: &Value| essence(&server.post("/v1/completions", request));
        requests.iter().map(ask).collect()
    };
    let lengths: std::collections::BTreeSet<usize> = alone
        .iter()
        .map(|answer| answer[0].as_str().unwrap().len())
        .collect();
    assert!(lengths.len() > 20, "the requests are alike: {lengths:?}");
    for stages in 1..=3 {
        let server = Server::with_stages(&model, stages, &options);
        let together: Vec<Value> = std::thread::scope(|scope| {
            let tasks: Vec<_> = requests
                .iter()
                .enumerate()
                .map(|(number, request)| {
                    let url = format!("{}/v1/completions", server.url);
                    scope.spawn(move || {
                        let pause = (number as u64 * 7_919) % 600;
                        std::thread::sleep(Duration::from_millis(pause));
                        essence(&good(&url, request))
                    })
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).collect()
        });
        for (number, (together, alone)) in together.iter().zip(&alone).enumerate() {
            assert_eq!(together, alone, "request {number}, {stages} stages");
        }
    }
}

/// The API's tokens are those of `concord generate`.
#[test]
fn an_answer_is_what_generate_gives() {
    let Some((model, _)) = tiny() else { return };
    let server = Server::with_stages(&model, 2, &[]);
    let request = serde_json::json!({ "prompt": "Once upon a time", "max_tokens": 40, "seed": 3,
        "temperature": 0.8 });
    let served = server.post("/v1/completions", &request);
    let generated = crate::pool::run(&[
        "generate",
        "--model",
        model.to_str().unwrap(),
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "40",
        "--seed",
        "3",
        "--temperature",
        "0.8",
    ]);
    let text = served["choices"][0]["text"].as_str();
    assert_eq!(text, generated.stdout.strip_suffix('\n'));
}
