//! A layer of experts over several workers that serve.

use serde_json::Value;

use crate::pool::{Process, run};
use crate::receipts::{answered, event, verify};
use crate::server::{Server, essence, mixed_request};

/// Answers of one worker, of four that share two layers of 8 experts, and of those while one of
/// them is killed: the same to the last digit.
#[test]
fn experts_over_four_workers_answer_as_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("mixtral");
    let folder = model.to_str().unwrap();
    let made = run(&["make-model", "--shape", "tiny-mixtral", folder]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let ask = |server: &Server, number: u64| {
        let mut request = mixed_request(number, &[]);
        request["prompt"] = "two and two".into();
        essence(&server.post("/v1/completions", &request))
    };
    let all = |server: &Server| (0..8).map(|number| ask(server, number)).collect::<Vec<_>>();
    let alone = all(&Server::with_stages(&model, 1, &[]));
    let mut server = Server::with_stages(&model, 4, &[]);
    let view = server.view();
    let stages = view["pipelines"][0]["stages"].as_array().unwrap();
    let layers: Vec<&Value> = stages.iter().map(|stage| &stage["layers"]).collect();
    let expected = serde_json::json!([[0, "0+4"], ["0+4", 1], [1, "1+4"], ["1+4", 2]]);
    assert_eq!(serde_json::json!(layers), expected);
    assert_eq!(all(&server), alone);
    // Each stage's claim is of what went over its cuts.
    let (_, receipt) = answered(&server, 20);
    let verified = event(&verify(&receipt, &model), "verified");
    let claimed = verified["stages"].as_array().unwrap().iter();
    let claimed: Vec<&Value> = claimed.map(|stage| &stage["layers"]).collect();
    assert_eq!(serde_json::json!(claimed), expected);
    server.join("worker", &["--threads", "1"]);
    let victim = server.holders()[1];
    let gone = Process::start(&mut std::process::Command::new("true"));
    std::mem::replace(&mut server.workers[victim], gone).kill();
    assert_eq!(all(&server), alone, "a stage of experts alone is lost");
}
