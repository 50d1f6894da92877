//! API keys and their limits.

use std::fs;
use std::sync::Arc;

use concord_gateway::{GatewayError, GatewayOptions, Refused, new_key, start};
use concord_proto::{Digest, Domain};
use serde_json::json;

use crate::client::{get, post};
use crate::script::{End, Script, Scripted};
use crate::stand::{Stand, chat_body, options, served};

/// A gateway with two keys: Ann's, with bounds, and the host's.
async fn closed(script: Script, bounds: &str) -> (Stand, String, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (ann, line) = new_key("ann").expect("random numbers");
    let (host, host_line) = new_key("host").expect("random numbers");
    let path = folder.path().join("keys");
    fs::write(&path, format!("{line} {bounds}\n{host_line} admin\n")).expect("written");
    let options = GatewayOptions {
        keys: Some(path),
        ..options()
    };
    (Stand::with(options, script, None).await, ann, host, folder)
}

#[tokio::test]
async fn a_key_is_needed_for_all_but_probes_and_the_page() {
    let (stand, ann, _, _folder) = closed(Script::text("x"), "").await;
    for path in [
        "/v1/models",
        "/metrics",
        "/api/pool",
        "/v1/receipts/chatcmpl-1",
        "/nothing",
    ] {
        for key in [None, Some("ck-wrong"), Some("")] {
            let reply = get(stand.addr, path, key).await;
            reply.refused(401, None, Some("invalid_api_key"));
        }
    }
    stand.make_ready();
    for path in [
        "/health",
        "/ready",
        "/",
        "/page.js",
        "/markdown.js",
        "/page.css",
    ] {
        assert_eq!(get(stand.addr, path, None).await.status, 200, "{path}");
    }
    let chat = "/v1/chat/completions";
    let body = chat_body(json!({}));
    let reply = post(stand.addr, chat, None, &body).await;
    reply.refused(401, None, Some("invalid_api_key"));
    assert_eq!(post(stand.addr, chat, Some(&ann), &body).await.status, 200);
    // Whose it is, for fair queueing.
    let owner = Digest::of(Domain::ApiKey, ann.as_bytes());
    assert_eq!(stand.engine.only().owner, owner);
}

#[tokio::test]
async fn a_minute_holds_so_many_requests_of_a_key() {
    let (stand, ann, host, _folder) = closed(Script::text("x"), "rpm=2").await;
    let (chat, body) = ("/v1/chat/completions", chat_body(json!({})));
    for _ in 0..2 {
        assert_eq!(post(stand.addr, chat, Some(&ann), &body).await.status, 200);
    }
    let reply = post(stand.addr, chat, Some(&ann), &body).await;
    reply.refused(429, None, Some("rate_limit_exceeded"));
    let seconds: u64 = reply.header("retry-after").parse().expect("seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
    // Other keys are not affected.
    assert_eq!(post(stand.addr, chat, Some(&host), &body).await.status, 200);
}

#[tokio::test]
async fn a_key_runs_so_many_requests_at_a_time() {
    let (stand, ann, _, _folder) = closed(Script::cut("a", End::Wait), "concurrent=1").await;
    let (chat, body) = ("/v1/chat/completions", chat_body(json!({})));
    let (addr, key, first_body) = (stand.addr, ann.clone(), body.clone());
    let first = tokio::spawn(async move { post(addr, chat, Some(&key), &first_body).await });
    while stand.engine.asked.lock().expect("no panic").is_empty() {
        tokio::task::yield_now().await;
    }
    let reply = post(stand.addr, chat, Some(&ann), &body).await;
    reply.refused(429, None, Some("rate_limit_exceeded"));
    first.abort();
    stand.engine.cancelled(1).await;
    // The place is free again, once the connection is known to be gone.
    let again = tokio::spawn({
        let (key, body) = (ann.clone(), body.clone());
        async move { post(addr, chat, Some(&key), &body).await }
    });
    while stand.engine.asked.lock().expect("no panic").len() < 2 {
        assert!(!again.is_finished(), "it should be let in");
        tokio::task::yield_now().await;
    }
    again.abort();
}

#[tokio::test]
async fn a_day_holds_so_many_tokens() {
    // 20 tokens of a prompt, and 4 of an answer with its end.
    let (stand, ann, _, _folder) = closed(Script::text("abc"), "tokens_per_day=24").await;
    let (chat, body) = ("/v1/chat/completions", chat_body(json!({})));
    assert_eq!(post(stand.addr, chat, Some(&ann), &body).await.status, 200);
    let reply = post(stand.addr, chat, Some(&ann), &body).await;
    let message = reply.refused(429, None, Some("rate_limit_exceeded"));
    assert!(message.contains("tokens of today"), "{message}");
}

#[tokio::test]
async fn what_is_refused_spends_no_tokens() {
    let script = Script {
        refuse: Some(Refused::Overloaded { waiting: 9 }),
        ..Script::text("x")
    };
    let (stand, ann, _, _folder) = closed(script, "tokens_per_day=25").await;
    for _ in 0..3 {
        let body = chat_body(json!({}));
        let reply = post(stand.addr, "/v1/chat/completions", Some(&ann), &body).await;
        reply.refused(503, None, Some("overloaded"));
    }
}

#[tokio::test]
async fn beyond_this_machine_a_key_is_needed_or_a_word() {
    let engine = || Arc::new(Scripted::new(Script::text("x")));
    let mut options = GatewayOptions::new(([0, 0, 0, 0], 0).into());
    let error = start(served(None), engine(), options.clone()).await.err();
    assert!(matches!(error, Some(GatewayError::Open(_))), "{error:?}");
    options.open = true;
    let gateway = start(served(None), engine(), options)
        .await
        .expect("a gateway");
    gateway.shutdown().await;
}

#[tokio::test]
async fn a_wrong_file_of_keys_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let options = GatewayOptions {
        keys: Some(path.clone()),
        ..options()
    };
    let engine = || Arc::new(Scripted::new(Script::text("x")));
    let error = start(served(None), engine(), options.clone()).await.err();
    assert!(
        matches!(error, Some(GatewayError::Read { .. })),
        "{error:?}"
    );
    fs::write(&path, "ann\n").expect("written");
    let error = start(served(None), engine(), options).await.err();
    assert!(
        matches!(error, Some(GatewayError::Keys { line: 1, .. })),
        "{error:?}"
    );
}
