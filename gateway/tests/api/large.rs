//! Prompts that cannot fit, and bodies that take memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::script::Script;
use crate::stand::{POSITIONS, Stand, options};
use crate::wire::Wire;

/// Bytes that the longest token of the stand's tokenizer has: `</s>`.
const WIDTH: usize = 4;

/// A text of so many bytes in each place that takes one.
fn places(bytes: usize) -> Vec<(&'static str, Value, &'static str)> {
    let text = "x".repeat(bytes);
    let message = |content: Value| json!([{"role": "user", "content": content}]);
    let part = json!([{"type": "text", "text": text}]);
    let (chat, completion) = ("/v1/chat/completions", "/v1/completions");
    vec![
        (chat, json!({"messages": message(json!(text))}), "messages"),
        (chat, json!({"messages": message(part)}), "messages"),
        (completion, json!({"prompt": text}), "prompt"),
        (completion, json!({"prompt": ["a", text]}), "prompt"),
        (
            completion,
            json!({"prompt": text, "echo": true, "max_tokens": 0}),
            "prompt",
        ),
        ("/tokenize", json!({"prompt": text}), "prompt"),
        (
            "/tokenize",
            json!({"messages": message(json!(text))}),
            "messages",
        ),
    ]
}

/// Beyond a number of bytes a text cannot fit, whatever its tokens are; below, they are counted.
#[tokio::test]
async fn what_cannot_fit_is_not_tokenized() {
    let stand = Stand::saying("x").await;
    let most = WIDTH * POSITIONS as usize;
    for (path, body, param) in places(most + 1) {
        let reply = stand.post(path, &body).await;
        let message = reply.refused(400, Some(param), Some("context_length_exceeded"));
        assert!(
            message.contains("maximum context length is 2000 tokens"),
            "{message}"
        );
        assert!(message.contains("at least 20"), "{message}");
    }
    for (path, body, param) in places(most - 200) {
        let reply = stand.post(path, &body).await;
        if path == "/tokenize" {
            assert_eq!(reply.status, 200, "{}", reply.text);
            assert!(reply.json()["count"].as_u64().expect("a count") >= 7_800);
            continue;
        }
        let message = reply.refused(400, Some(param), Some("context_length_exceeded"));
        assert!(message.contains("However, you requested"), "{message}");
    }
    assert!(stand.engine.asked.lock().expect("no panic").is_empty());
}

/// The largest bodies take no time, however many come at once.
#[tokio::test]
async fn megabytes_are_refused_at_once() {
    let stand = Stand::saying("x").await;
    let started = Instant::now();
    let all = places(3_900_000);
    let asks = all.iter().map(|(path, body, _)| stand.post(path, body));
    let replies = futures_util::future::join_all(asks).await;
    for (reply, (_, _, param)) in replies.iter().zip(&all) {
        reply.refused(400, Some(param), Some("context_length_exceeded"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn tokens_without_end_are_no_text() {
    let stand = Stand::saying("x").await;
    let tokens = vec![97; (1 << 18) + 1];
    let reply = stand.post("/detokenize", &json!({"tokens": tokens})).await;
    let message = reply.refused(400, Some("tokens"), None);
    assert!(message.contains("at most 262144"), "{message}");
    let tokens = vec![97; 100_000];
    let reply = stand.post("/detokenize", &json!({"tokens": tokens})).await;
    assert_eq!(
        reply.json()["prompt"].as_str().expect("a text").len(),
        100_000
    );
}

/// Memory is taken as bytes come, and given back with the connection.
#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let mut options = options();
    options.limits.bodies_bytes = 2_000;
    let stand = Stand::with(options, Script::text("x"), None).await;
    let head = |length: usize| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    // Many announce much, and send little.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(stand.addr).await;
        wire.send(format!("{}{{", head(900)).as_bytes()).await;
        waiting.push(wire);
    }
    sleep(Duration::from_millis(100)).await;
    let small = json!({"prompt": "a"});
    assert_eq!(stand.complete(small.clone()).await.status, 200);
    // One sends most of the memory: without keys, clients cannot be told apart.
    let mut wire = Wire::connect(stand.addr).await;
    wire.send(format!("{}{}", head(1_960), " ".repeat(1_920)).as_bytes())
        .await;
    sleep(Duration::from_millis(100)).await;
    let padded = json!({"prompt": "a", "user": "u".repeat(100)});
    let reply = stand.complete(padded.clone()).await;
    reply.refused(503, None, Some("overloaded"));
    assert_eq!(reply.header("retry-after"), "1");
    drop(wire);
    let mut status = 503;
    for _ in 0..100 {
        status = stand.complete(padded.clone()).await.status.as_u16();
        if status == 200 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200);
}
