//! Receipts, and who is named when an answer is not what it should be.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use concord_gateway::receipt_file;
use concord_proto::serving::{BatchedReceipt, Finish, Receipt};
use concord_proto::{Keypair, canonical};
use serde_json::{Value, json};

use crate::pool::{Ran, run};
use crate::server::{PATIENCE, Server, get, status, tiny};

/// Asks for an answer and writes its receipt into a file.
pub fn answered(server: &Server, tokens: u32) -> (Value, PathBuf) {
    let answer = server.post(
        "/v1/completions",
        &json!({ "prompt": "Once upon a time", "max_tokens": tokens, "seed": 7,
            "temperature": 0.9, "logit_bias": { "2": -100 }, "logprobs": 2 }),
    );
    let url = format!(
        "{}/v1/receipts/{}",
        server.url,
        answer["id"].as_str().unwrap()
    );
    let start = Instant::now();
    while status(&url) != 200 {
        assert!(start.elapsed() < PATIENCE, "no receipt");
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = server.dir.path().join("receipt.json");
    std::fs::write(&path, get(&url).to_string()).unwrap();
    (answer, path)
}

pub fn verify(receipt: &Path, model: &Path) -> Ran {
    let (receipt, model) = (receipt.to_str().unwrap(), model.to_str().unwrap());
    run(&["--json", "verify", receipt, "--model", model])
}

/// The last object that a run printed with this event.
pub fn event(ran: &Ran, name: &str) -> Value {
    let objects = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut named = objects.filter(|object| object["event"] == name);
    named
        .next_back()
        .unwrap_or_else(|| panic!("no {name} in {ran:#?}"))
}

#[test]
fn a_receipt_is_proven_on_this_machine_and_no_other_model_fits() {
    let Some((model, _)) = tiny() else { return };
    for stages in [1, 3] {
        let server = Server::with_stages(&model, stages, &[]);
        let (_, receipt) = answered(&server, 60);
        let verified = event(&verify(&receipt, &model), "verified");
        assert_eq!(verified["answer_tokens"], 60);
        assert_eq!(verified["finish"], "length");
        assert_eq!(verified["logprobs"]["answer"], 60);
        assert_eq!(verified["batch"], json!({ "index": 0, "count": 1 }));
        assert_eq!(verified["stages"].as_array().unwrap().len(), stages);
        let other = model.with_file_name("tiny-qwen2");
        verify(&receipt, &other).unshown(&["the model is another one"]);
    }
}

/// Keys and values of 8 bits: the same answer of one stage and of two, and a receipt that says so.
#[test]
fn an_answer_over_8_bits_is_proven() {
    let Some((model, _)) = tiny() else { return };
    let mut texts = Vec::new();
    for more in [&[][..], &["--kv-cache-dtype", "int8"]] {
        for stages in [1, 2] {
            let server = Server::with_stages(&model, stages, more);
            let (answer, receipt) = answered(&server, 60);
            texts.push(answer["choices"][0]["text"].clone());
            event(&verify(&receipt, &model), "verified");
            let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
            let bits = &receipt["deployment"]["precision"]["key_values"];
            let named = if more.is_empty() {
                Value::Null
            } else {
                json!(8)
            };
            assert_eq!(*bits, named);
        }
    }
    assert_eq!((&texts[0], &texts[2]), (&texts[1], &texts[3]));
    assert_ne!(texts[0], texts[2]);
}

/// Workers that cheat, in a pipeline of three stages: `verify` names the culprit, and nobody else.
#[test]
fn a_stage_that_cheats_is_named() {
    let Some((model, _)) = tiny() else { return };
    // Only the last stage draws tokens, and the plan decides who holds it: so all three workers
    // would lie about a token or its logprob.
    for (lie, liars) in [
        ("alter-activation@3", 1),
        ("other-weights", 1),
        ("wrong-token@9", 3),
        ("wrong-logprob@9", 3),
    ] {
        let mut server = Server::start(&model, &["--stages", "3", "--min-workers", "3"]);
        for member in 0..3 {
            let cheat: &[&str] = if member < liars { &["--lie", lie] } else { &[] };
            server.join("worker", &[&["--threads", "1"], cheat].concat());
        }
        server.ready();
        let culprit = match liars {
            1 => server.key(0),
            _ => server.holders_by_key().pop().unwrap(),
        };
        let (_, receipt) = answered(&server, 40);
        let refuted = event(&verify(&receipt, &model), "refuted");
        assert_eq!(refuted["party"], culprit, "{lie}: {refuted}");
        println!("{lie}: {}", refuted["reason"]);
    }
}

/// What a gateway alters in a receipt.
type Lie = fn(&mut Receipt);

/// A gateway that alters a token of an answer, and signs it.
#[test]
fn a_gateway_that_alters_a_token_is_named() {
    let Some((model, _)) = tiny() else { return };
    let server = Server::with_stages(&model, 2, &[]);
    let (_, path) = answered(&server, 30);
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signed = unhex(file["signed"].as_str().unwrap());
    let signed: BatchedReceipt = canonical::decode(&signed).unwrap();
    let receipt = signed.open().unwrap();
    let key = Keypair::from_secret([7; 32]);
    for index in [0, 12, 29] {
        let mut altered = receipt.clone();
        altered.answer[index] ^= 1;
        let altered = receipt_file::to_json(&BatchedReceipt::alone(&key, &altered)).unwrap();
        std::fs::write(&path, altered.to_string()).unwrap();
        let refuted = event(&verify(&path, &model), "refuted");
        assert_eq!(
            refuted["party"],
            key.public().to_string(),
            "token {index}: {refuted}"
        );
    }
    // What else the tokens come with: logprobs, the end, and the text.
    let lies: [(&str, Lie); 6] = [
        ("other tokens or logprobs", |r| {
            r.logprobs.answer[4].logprob.0 ^= 1
        }),
        ("other tokens or logprobs", |r| {
            r.logprobs.answer[4].top.swap(0, 1)
        }),
        ("that nobody asked for", |r| {
            r.logprobs.prompt = r.logprobs.answer.clone();
        }),
        ("its last token is none", |r| r.finish = Finish::StopToken),
        ("another generation", |r| {
            (r.finish, r.spec.stop_texts) = (Finish::StopText, vec!["a".to_string()]);
        }),
        ("its tokens give another text", |r| r.text.0[0] ^= 1),
    ];
    for (words, lie) in lies {
        let mut altered = receipt.clone();
        lie(&mut altered);
        let altered = receipt_file::to_json(&BatchedReceipt::alone(&key, &altered)).unwrap();
        std::fs::write(&path, altered.to_string()).unwrap();
        let refuted = event(&verify(&path, &model), "refuted");
        let reason = refuted["reason"].as_str().unwrap();
        println!("{reason}");
        assert!(reason.contains(words), "{words}: {reason}");
        assert_eq!(refuted["party"], key.public().to_string());
    }
    // What people read must be what is signed.
    let mut edited = file.clone();
    edited["answer"][3] = json!(1);
    std::fs::write(&path, edited.to_string()).unwrap();
    verify(&path, &model).refused(&["'answer'", "altered"]);
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |index: usize| u8::from_str_radix(&text[index..index + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// With checkers at work, a stage that cheats is out of the pool after its first answers.
#[test]
fn audits_find_a_stage_that_cheats() {
    let Some((model, _)) = tiny() else { return };
    let mut server = Server::start(
        &model,
        &["--stages", "2", "--min-workers", "2", "--audit-rate", "1"],
    );
    let liar = server.join("worker", &["--threads", "1", "--lie", "other-weights"]);
    server.join("worker", &["--threads", "1"]);
    server.join("checker", &["--threads", "1"]);
    server.join("checker", &["--threads", "1"]);
    server.ready();
    answered(&server, 20);
    server.join("worker", &["--threads", "1"]);
    let start = Instant::now();
    let key = server.key(liar);
    while server.holders_by_key().contains(&key) {
        assert!(
            start.elapsed() < PATIENCE,
            "it still serves: {}",
            server.view()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    server.ready();
    let (_, receipt) = answered(&server, 20);
    event(&verify(&receipt, &model), "verified");
}
