//! The end of a gateway, with requests under way.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::{get, post};
use crate::script::{End, Script};
use crate::stand::{Stand, chat_body};

const CHAT: &str = "/v1/chat/completions";

async fn is_asked(stand: &Stand, count: usize) {
    while stand.engine.asked.lock().expect("no panic").len() < count {
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_is_under_way_ends_and_nothing_new_begins() {
    let mut script = Script::text(&"abcdefghij".repeat(4));
    script.pause = Duration::from_millis(50);
    let stand = Stand::playing(script).await;
    stand.make_ready();
    let addr = stand.addr;
    let ask = |stream: bool| {
        let body = chat_body(json!({"stream": stream}));
        tokio::spawn(async move { post(addr, CHAT, None, &body).await })
    };
    let running = [ask(true), ask(false)];
    is_asked(&stand, 2).await;
    let started = Instant::now();
    let draining = tokio::spawn(stand.gateway.drain(Duration::from_secs(60)));
    sleep(Duration::from_millis(200)).await;
    for (path, body) in [
        (CHAT, chat_body(json!({}))),
        ("/tokenize", json!({"prompt": "a"})),
    ] {
        let reply = post(addr, path, None, &body).await;
        let message = reply.refused(503, None, Some("shutting_down"));
        assert!(message.contains("shutting down"), "{message}");
        assert_eq!(reply.header("connection"), "close");
        assert_eq!(reply.header("retry-after"), "5");
    }
    get(addr, "/health", None)
        .await
        .refused(503, None, Some("shutting_down"));
    assert_eq!(get(addr, "/metrics", None).await.status, 200);
    for answer in running {
        let reply = answer.await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.text.contains("\"stop\""), "{}", reply.text);
    }
    draining.await.expect("an end");
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_cut_with_a_word() {
    let stand = Stand::playing(Script::cut("ab", End::Wait)).await;
    let addr = stand.addr;
    let ask = |stream: bool| {
        let body = chat_body(json!({"stream": stream}));
        tokio::spawn(async move { post(addr, CHAT, None, &body).await })
    };
    let (stream, whole) = (ask(true), ask(false));
    is_asked(&stand, 2).await;
    let started = Instant::now();
    stand.gateway.drain(Duration::from_millis(300)).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let chunks = stream.await.expect("a stream").chunks();
    let last = chunks.last().expect("a chunk");
    assert_eq!(last["error"]["code"], "shutting_down", "{last}");
    assert_eq!(last["usage"]["completion_tokens"], 2, "{last}");
    let reply = whole.await.expect("a response");
    reply.refused(503, None, Some("shutting_down"));
    stand.engine.cancelled(2).await;
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let stand = Stand::saying("x").await;
    // Connections that nobody uses hold nobody up.
    let idle = TcpStream::connect(stand.addr)
        .await
        .expect("the gateway listens");
    sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    stand.gateway.drain(Duration::from_secs(60)).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    drop(idle);
}
