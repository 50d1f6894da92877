//! Streams of chunks.

use std::time::Duration;

use concord_proto::serving::Update;
use concord_proto::{Digest, Domain};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::script::{End, Script};
use crate::stand::{CHAT_PROMPT, Stand, chat_body};

/// The text of a choice, out of its chunks; and its reasons, which have to be one.
fn joined(chunks: &[Value], index: u64) -> (String, String) {
    let mut text = String::new();
    let mut reasons = Vec::new();
    for chunk in chunks {
        for choice in chunk["choices"].as_array().expect("choices") {
            if choice["index"] == index {
                text += choice["delta"]["content"].as_str().unwrap_or("");
                reasons.extend(choice["finish_reason"].as_str());
            }
        }
    }
    assert_eq!(reasons.len(), 1, "{chunks:?}");
    (text, reasons[0].to_string())
}

#[tokio::test]
async fn chunks_keep_the_rules() {
    let stand = Stand::saying("Hi \u{1F600} there").await;
    let reply = stand.chat(json!({"stream": true, "seed": 5})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-accel-buffering"), "no");
    let chunks = reply.chunks();
    let first = &chunks[0];
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(first["seed"], 5);
    assert_eq!(
        reply.header("x-request-id"),
        first["id"].as_str().expect("an id")
    );
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for same in ["id", "created", "model", "system_fingerprint"] {
            assert_eq!(chunk[same], first[same]);
        }
        // Usage was not asked for.
        assert!(chunk.get("usage").is_none());
        let content = chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or("");
        assert!(!content.contains('\u{fffd}'), "{content}");
    }
    let roles = chunks
        .iter()
        .filter(|chunk| !chunk["choices"][0]["delta"]["role"].is_null());
    assert_eq!(roles.count(), 1);
    let last = chunks.last().expect("a chunk");
    assert_eq!(last["choices"][0]["delta"], json!({}));
    let (text, reason) = joined(&chunks, 0);
    assert_eq!(
        (text.as_str(), reason.as_str()),
        ("Hi \u{1F600} there", "stop")
    );
    let closed = stand.engine.closed(1).await;
    assert_eq!(closed[0].1, Digest::of(Domain::Text, text.as_bytes()));
}

#[tokio::test]
async fn usage_comes_last_where_it_is_asked_for() {
    let stand = Stand::saying("abc").await;
    let options = json!({"include_usage": true});
    let reply = stand
        .chat(json!({"stream": true, "stream_options": options}))
        .await;
    let mut chunks = reply.chunks();
    let last = chunks.pop().expect("a chunk");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["prompt_tokens"], CHAT_PROMPT.len());
    assert_eq!(last["usage"]["completion_tokens"], 4);
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
    let reply = stand.chat(json!({"stream_options": options})).await;
    reply.refused(400, Some("stream_options"), None);
}

#[tokio::test]
async fn choices_come_interleaved() {
    let mut script = Script::text("abcdefgh");
    script.pause = Duration::from_millis(5);
    let stand = Stand::playing(script).await;
    let chunks = stand.chat(json!({"stream": true, "n": 2})).await.chunks();
    let order: Vec<u64> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["index"].as_u64())
        .collect();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 2, "{order:?}");
    for index in [0, 1] {
        assert_eq!(
            joined(&chunks, index),
            ("abcdefgh".to_string(), "stop".to_string())
        );
    }
}

#[tokio::test]
async fn no_part_of_a_stop_text_leaks() {
    let stand = Stand::saying("a STO b STOP c").await;
    let chunks = stand
        .chat(json!({"stream": true, "stop": ["STOP"]}))
        .await
        .chunks();
    let (text, reason) = joined(&chunks, 0);
    assert_eq!((text.as_str(), reason.as_str()), ("a STO b ", "stop"));
}

#[tokio::test]
async fn logprobs_come_with_their_text() {
    let stand = Stand::saying("ab").await;
    let fields = json!({"stream": true, "logprobs": true, "top_logprobs": 1});
    let chunks = stand.chat(fields).await.chunks();
    let tokens: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .filter_map(|entry| entry["token"].as_str())
        .collect();
    assert_eq!(tokens, ["a", "b", "</s>"]);
}

#[tokio::test]
async fn calls_come_by_their_index() {
    let stand = Stand::saying(
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n\
         {\"name\": \"g\", \"arguments\": {}}\n</tool_call>",
    )
    .await;
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let fields = json!({"stream": true, "tools": [tool("f"), tool("g")]});
    let chunks = stand.chat(fields).await.chunks();
    let mut calls = vec![(String::new(), String::new(), String::new()); 2];
    for chunk in &chunks {
        let deltas = chunk["choices"][0]["delta"]["tool_calls"].as_array();
        for delta in deltas.into_iter().flatten() {
            let call = &mut calls[delta["index"].as_u64().expect("an index") as usize];
            call.0 += delta["id"].as_str().unwrap_or("");
            call.1 += delta["function"]["name"].as_str().unwrap_or("");
            call.2 += delta["function"]["arguments"].as_str().unwrap_or("");
        }
    }
    assert_eq!(
        (calls[0].1.as_str(), calls[0].2.as_str()),
        ("f", "{\"a\": 1}")
    );
    assert_eq!((calls[1].1.as_str(), calls[1].2.as_str()), ("g", "{}"));
    assert!(calls.iter().all(|call| call.0.len() == 9), "{calls:?}");
    assert_ne!(calls[0].0, calls[1].0);
    assert_eq!(joined(&chunks, 0).1, "tool_calls");
}

#[tokio::test]
async fn waiting_is_told_in_comments() {
    let mut script = Script::text("x");
    script.before = vec![
        Update::Queued { ahead: 4 },
        Update::Prefill { done: 5, total: 9 },
        Update::Paused,
        Update::Resumed,
    ];
    script.pause = Duration::from_millis(250);
    let stand = Stand::playing(script).await;
    let reply = stand.chat(json!({"stream": true})).await;
    for note in [
        "waits behind 4",
        "read 5 of 9 tokens",
        "paused",
        "resumed",
        "still here",
    ] {
        assert!(reply.text.contains(note), "{note}: {}", reply.text);
    }
    assert_eq!(joined(&reply.chunks(), 0).0, "x");
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_told_with_the_usage_so_far() {
    for end in [End::Fail { retry: true }, End::Vanish] {
        let stand = Stand::playing(Script::cut("ab", end)).await;
        let chunks = stand.chat(json!({"stream": true})).await.chunks();
        let last = chunks.last().expect("a chunk");
        assert!(last["error"]["message"].is_string(), "{last}");
        assert_eq!(last["usage"]["completion_tokens"], 2);
        assert_eq!(last["usage"]["prompt_tokens"], CHAT_PROMPT.len());
        assert_eq!(chunks[0]["choices"][0]["delta"]["content"], "a");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_answer() {
    for stream in [true, false] {
        let stand = Stand::playing(Script::cut("ab", End::Wait)).await;
        let body = chat_body(json!({"stream": stream, "n": 2})).to_string();
        let mut client = TcpStream::connect(stand.addr)
            .await
            .expect("the gateway listens");
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(head.as_bytes()).await.expect("sent");
        if stream {
            let mut some = [0; 64];
            client.read_exact(&mut some).await.expect("a start");
        } else {
            while stand.engine.asked.lock().expect("no panic").len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        drop(client);
        stand.engine.cancelled(2).await;
    }
}
