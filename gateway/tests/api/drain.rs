//! The end of a gateway with running requests.

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
    assert_eq!(draining.await.expect("an end"), 0, "answers were cut");
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
    let under_way = stand.gateway.under_way();
    assert_eq!(under_way.answers(), 2);
    let cut = stand.gateway.drain(Duration::from_millis(300)).await;
    assert_eq!((cut, under_way.answers()), (2, 0));
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
    // Idle connections do not delay the end.
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

/// A request for an answer counts as running before its body is received; refused requests, and
/// requests that ask for no answer, do not count.
#[tokio::test]
async fn requests_for_answers_are_counted_and_refused_ones_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, line) = concord_gateway::new_key("ann").expect("random numbers");
    let keys = folder.path().join("keys");
    std::fs::write(&keys, format!("{line}\n")).expect("written");
    let closed = concord_gateway::GatewayOptions {
        keys: Some(keys),
        ..crate::stand::options()
    };
    for (options, count) in [(closed, 0), (crate::stand::options(), 1)] {
        let stand = Stand::with(options, Script::text("x"), None).await;
        let under_way = stand.gateway.under_way();
        let mut wire = crate::wire::Wire::connect(stand.addr).await;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\n\r\n"
        );
        wire.send(head.as_bytes()).await;
        assert_eq!(get(stand.addr, "/", None).await.status, 200);
        for _ in 0..200 {
            if under_way.answers() == 1 {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(under_way.answers(), count);
        drop(wire);
        let started = Instant::now();
        assert_eq!(stand.gateway.drain(Duration::from_secs(60)).await, 0);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(under_way.answers(), 0);
    }
}
