//! The daily quota of tokens, whatever the order of requests.

use std::fs;
use std::path::Path;

use concord_gateway::{GatewayError, GatewayOptions, new_key, start};
use serde_json::{Value, json};

use crate::client::{Reply, post};
use crate::script::{End, Script, Scripted};
use crate::stand::{Stand, options, served};

/// The prompt "Once" has five tokens.
const PROMPT: u64 = 5;

async fn stand(keys: &Path) -> Stand {
    let options = GatewayOptions {
        keys: Some(keys.to_path_buf()),
        ..options()
    };
    let mut script = Script::cut(&"x".repeat(60), End::Finish);
    script.pause = std::time::Duration::from_millis(1);
    Stand::with(options, script, None).await
}

/// A file of one key with so many tokens a day.
fn key_of(folder: &Path, tokens: u64) -> (std::path::PathBuf, String, String) {
    let (key, line) = new_key("carol").expect("random numbers");
    let path = folder.join("keys");
    fs::write(&path, format!("{line} tokens_per_day={tokens}\n")).expect("written");
    (path, key, line)
}

async fn ask(stand: &Stand, key: &str, more: Value) -> Reply {
    let mut body = json!({"prompt": "Once"});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(more);
    post(stand.addr, "/v1/completions", Some(key), &body).await
}

fn total(reply: &Reply) -> u64 {
    reply.json()["usage"]["total_tokens"].as_u64().unwrap_or(0)
}

/// Twenty at once, of which the day holds a few.
#[tokio::test]
async fn requests_at_once_do_not_overshoot() {
    for (max_tokens, choices) in [(15, 1), (40, 1), (10, 2), (95, 1), (400, 1)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, key, _) = key_of(folder.path(), 100);
        let stand = stand(&path).await;
        let fields = json!({"max_tokens": max_tokens, "n": choices});
        let asks = (0..20).map(|_| ask(&stand, &key, fields.clone()));
        let replies = futures_util::future::join_all(asks).await;
        let took: u64 = replies.iter().map(total).sum();
        let answered = replies.iter().filter(|reply| reply.status == 200).count();
        assert!(took <= 100, "{fields}: {took}");
        let fits = PROMPT + choices * max_tokens <= 100;
        assert_eq!(answered > 0, fits, "{fields}");
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            reply.refused(429, None, Some("rate_limit_exceeded"));
            let seconds: u64 = reply.header("retry-after").parse().expect("seconds");
            assert!(seconds >= 1, "{seconds}");
        }
    }
}

/// An answer without a given length may have what is left, and what it did not use is released.
#[tokio::test]
async fn an_open_length_is_what_the_day_has_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, key, _) = key_of(folder.path(), 100);
    let options = GatewayOptions {
        keys: Some(path),
        ..options()
    };
    // Ten tokens of an answer, with its end, and 20 of a prompt.
    let stand = Stand::with(options, Script::text("123456789"), None).await;
    let chat = crate::stand::chat_body(json!({}));
    for left in [100, 70, 40] {
        let reply = post(stand.addr, "/v1/chat/completions", Some(&key), &chat).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(total(&reply), 30);
        let asked = stand.engine.asked.lock().expect("no panic");
        let last = asked.last().expect("a generation");
        assert_eq!(last.spec.max_tokens, left - 20);
    }
    let reply = post(stand.addr, "/v1/chat/completions", Some(&key), &chat).await;
    let message = reply.refused(429, None, Some("rate_limit_exceeded"));
    assert!(message.contains("90 are used"), "{message}");
}

#[tokio::test]
async fn a_new_start_knows_what_was_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, key, line) = key_of(folder.path(), 60);
    let fields = json!({"max_tokens": 15});
    for left in [60, 40, 20, 0] {
        let stand = stand(&path).await;
        let reply = ask(&stand, &key, fields.clone()).await;
        assert_eq!(reply.status == 200, left >= 20, "{left}: {}", reply.text);
        stand.gateway.shutdown().await;
    }
    let kept = fs::read_to_string(folder.path().join("keys.usage")).expect("a file");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    let digest = line.split(' ').nth(1).expect("a digest");
    assert_eq!(kept["tokens"][digest], 60, "{kept}");
    assert!(!kept.to_string().contains(&key));
    // For keys without such a limit no file is written.
    let other = tempfile::tempdir().expect("a folder");
    let (key, line) = new_key("dan").expect("random numbers");
    let path = other.path().join("keys");
    fs::write(&path, format!("{line}\n")).expect("written");
    let stand = stand(&path).await;
    assert_eq!(ask(&stand, &key, fields).await.status, 200);
    stand.gateway.shutdown().await;
    assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 1);
}

/// A kill leaves the file as it is while answers run. However often that happens, no more tokens
/// are given than the day has.
#[tokio::test]
async fn a_kill_forgets_no_tokens_that_were_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, key, line) = key_of(folder.path(), 100);
    let digest = line.split(' ').nth(1).expect("a digest");
    let usage = folder.path().join("keys.usage");
    let mut drawn = 0;
    for round in 0..8 {
        let options = GatewayOptions {
            keys: Some(path.clone()),
            ..options()
        };
        let stand = Stand::with(options, Script::cut("abc", End::Wait), None).await;
        let asking = tokio::spawn({
            let (addr, key) = (stand.addr, key.clone());
            let body = json!({"prompt": "Once", "max_tokens": 20});
            async move { post(addr, "/v1/completions", Some(&key), &body).await }
        });
        while stand.engine.asked.lock().expect("no panic").is_empty() {
            if asking.is_finished() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let is_running = !asking.is_finished();
        // The first reserves 25 tokens, so that the day holds four.
        assert_eq!(is_running, round < 4, "round {round}");
        let left = fs::read(&usage).expect("a file");
        if is_running {
            drawn += PROMPT + 20;
            let kept: Value = serde_json::from_slice(&left).expect("JSON");
            assert_eq!(kept["set_aside"][digest], 25, "{kept}");
        }
        asking.abort();
        stand.gateway.drain(std::time::Duration::ZERO).await;
        // Restores the file as it was before the process ended in order, which a killed one would
        // leave.
        fs::write(&usage, left).expect("written");
        assert!(drawn <= 100, "{drawn}");
    }
}

#[tokio::test]
async fn two_servers_do_not_share_a_file_of_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, key, _) = key_of(folder.path(), 60);
    let first = stand(&path).await;
    let at = |usage: Option<&str>| GatewayOptions {
        keys: Some(path.clone()),
        usage: usage.map(|name| folder.path().join(name)),
        ..options()
    };
    let engine = || std::sync::Arc::new(Scripted::new(Script::text("x")));
    let error = start(served(None), engine(), at(None)).await.err();
    let Some(error @ GatewayError::UsageShared { .. }) = error else {
        panic!("it should be refused: {error:?}");
    };
    let message = error.to_string();
    assert!(
        message.contains("keys.usage") && message.contains("--dir"),
        "{message}"
    );
    // In a place of its own it starts, and the first one goes on.
    let second = start(served(None), engine(), at(Some("other"))).await;
    second.expect("a gateway").shutdown().await;
    assert_eq!(
        ask(&first, &key, json!({"max_tokens": 15})).await.status,
        200
    );
    first.gateway.shutdown().await;
    // The end of the first one lets the next one in.
    stand(&path).await.gateway.shutdown().await;
    // Without limits nothing is written, so nothing is locked.
    let (key, line) = new_key("dan").expect("random numbers");
    fs::write(&path, format!("{line}\n")).expect("written");
    let both = [stand(&path).await, stand(&path).await];
    for stand in both {
        assert_eq!(
            ask(&stand, &key, json!({"max_tokens": 3})).await.status,
            200
        );
    }
}
