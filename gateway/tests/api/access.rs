//! The access log, and the names of requests.

use std::fs;

use axum::body::Body;
use axum::http::Request;
use concord_gateway::{GatewayError, GatewayOptions, new_key, start};
use serde_json::{Value, json};

use crate::client::{get, post, send};
use crate::script::{End, Script, Scripted};
use crate::stand::{Stand, chat_body, options, served};
use crate::wire::Wire;

const CHAT: &str = "/v1/chat/completions";

/// The lines of a log, once the gateway that wrote it has ended.
async fn lines(stand: Stand, folder: &tempfile::TempDir) -> Vec<Value> {
    stand.gateway.shutdown().await;
    let text = fs::read_to_string(folder.path().join("log")).expect("a log");
    let parse = |line| serde_json::from_str(line).expect("each line is an object");
    text.lines().map(parse).collect()
}

fn logged(folder: &tempfile::TempDir) -> GatewayOptions {
    GatewayOptions {
        access_log: Some(folder.path().join("log")),
        ..options()
    }
}

#[tokio::test]
async fn a_line_for_each_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, line) = new_key("ann").expect("random numbers");
    let keys = folder.path().join("keys");
    fs::write(&keys, format!("{line}\n")).expect("written");
    let options = GatewayOptions {
        keys: Some(keys),
        ..logged(&folder)
    };
    let stand = Stand::with(options, Script::text("abc"), None).await;
    let mut ids = Vec::new();
    for (stream, model) in [(false, ""), (true, "tuned")] {
        let body = chat_body(json!({"stream": stream, "n": 2, "model": model}));
        let reply = post(stand.addr, CHAT, Some(&key), &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        ids.push(reply.header("x-request-id").to_string());
    }
    for (path, key) in [("/nothing?token=secret", Some(&key)), (CHAT, None)] {
        let reply = get(stand.addr, path, key.map(String::as_str)).await;
        ids.push(reply.header("x-request-id").to_string());
    }
    let body = json!({"messages": "none"});
    let reply = post(stand.addr, CHAT, Some(&key), &body).await;
    ids.push(reply.header("x-request-id").to_string());
    let lines = lines(stand, &folder).await;
    let told = |name: &str| -> Vec<Value> { lines.iter().map(|line| line[name].clone()).collect() };
    assert_eq!(told("id"), ids);
    assert_eq!(told("status"), [200, 200, 404, 401, 400].map(Value::from));
    let ann = json!("ann");
    assert_eq!(
        told("key"),
        [ann.clone(), ann.clone(), ann.clone(), Value::Null, ann]
    );
    assert_eq!(
        told("method"),
        ["POST", "POST", "GET", "GET", "POST"].map(Value::from)
    );
    assert_eq!(
        told("model")[..3],
        [json!("tiny/model"), json!("tuned"), Value::Null]
    );
    assert_eq!(
        told("path"),
        [CHAT, CHAT, "/nothing", CHAT, CHAT].map(Value::from)
    );
    // Two answers share a prompt.
    assert_eq!(told("prompt_tokens"), [20, 20, 0, 0, 0].map(Value::from));
    assert_eq!(told("answer_tokens"), [8, 8, 0, 0, 0].map(Value::from));
    for line in &lines {
        assert!(line["seconds"].as_f64().expect("seconds") >= 0.0);
        assert!(line["time"].as_f64().expect("a time") > 1.7e9);
        let answered = line["status"] == 200;
        assert_eq!(line["first_seconds"].is_f64(), answered, "{line}");
        assert!(!line.to_string().contains(&key) && !line.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_client_that_leaves_has_a_line_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = Script::cut("ab", End::Wait);
    let stand = Stand::with(logged(&folder), script, None).await;
    for (count, stream) in [(1, true), (2, false)] {
        let body = chat_body(json!({"stream": stream})).to_string();
        let mut wire = Wire::connect(stand.addr).await;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.send(head.as_bytes()).await;
        while stand.engine.asked.lock().expect("no panic").len() < count {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop(wire);
        stand.engine.cancelled(count as u32).await;
    }
    let lines = lines(stand, &folder).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert_eq!(
            (&line["status"], &line["answer_tokens"]),
            (&json!(499), &json!(2)),
            "{line}"
        );
    }
}

/// A client's name for its request is in the response and in the log, unless it is not a valid
/// name.
#[tokio::test]
async fn clients_name_their_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let stand = Stand::with(logged(&folder), Script::text("x"), None).await;
    let ask = |id: &str, path: &str, body: Value| {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("x-request-id", id)
            .body(Body::from(body.to_string()));
        send(stand.addr, request.expect("a request"))
    };
    let (mut expected, mut answers) = (Vec::new(), Vec::new());
    for (path, status) in [(CHAT, 200), ("/v1/completions", 400), ("/nothing", 404)] {
        let reply = ask("trace-1/a:b", path, chat_body(json!({}))).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-request-id"), "trace-1/a:b");
        expected.push("trace-1/a:b".to_string());
        if status == 200 {
            // The answer's name is in the body.
            let id = reply.json()["id"].as_str().expect("an id").to_string();
            assert!(id.starts_with("chatcmpl-"), "{id}");
            answers.push(id);
        }
    }
    let long = "a".repeat(200);
    for wrong in ["a b", "<script>", "\"", &long] {
        let reply = ask(wrong, "/nothing", json!({})).await;
        let made = reply.header("x-request-id").to_string();
        assert!(made.starts_with("req-") && made.len() == 36, "{made}");
        expected.push(made);
    }
    let lines = lines(stand, &folder).await;
    let told: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["id"].as_str())
        .collect();
    assert_eq!(told, expected);
    let told = lines.iter().filter_map(|line| line["answer"].as_str());
    assert_eq!(told.collect::<Vec<_>>(), answers);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = GatewayOptions {
        access_log: Some(folder.path().join("none/log")),
        ..options()
    };
    let engine = std::sync::Arc::new(Scripted::new(Script::text("x")));
    let error = start(served(None), engine, options).await.err();
    assert!(
        matches!(error, Some(GatewayError::Write { .. })),
        "{error:?}"
    );
}
