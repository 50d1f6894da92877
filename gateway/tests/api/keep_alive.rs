//! Connections after a refusal: they go on, or say that they do not.

use std::fs;
use std::time::Duration;

use concord_gateway::{GatewayOptions, new_key};
use tokio::time::sleep;

use crate::script::Script;
use crate::stand::{Stand, options};
use crate::wire::Wire;

/// Requests that are refused: the status, the line and the fields of their heads.
const REFUSED: [(u16, &str, &str); 8] = [
    (
        400,
        "POST /v1/chat/completions",
        "Content-Type: application/json",
    ),
    (
        401,
        "POST /v1/chat/completions",
        "Authorization: Bearer ck-wrong",
    ),
    (401, "GET /v1/models", "Authorization: Bearer ck-wrong"),
    (404, "POST /v1/responses", "Content-Type: application/json"),
    (404, "PUT /nope", "X-A: b"),
    (405, "POST /v1/models", "Content-Type: application/json"),
    (405, "DELETE /v1/completions", "X-A: b"),
    (415, "POST /v1/completions", "Content-Type: text/plain"),
];

/// A body: what frames it, and its bytes.
fn bodies() -> Vec<(&'static str, String, Vec<u8>)> {
    let sized = |bytes: &[u8]| (format!("Content-Length: {}", bytes.len()), bytes.to_vec());
    let large = [b'x'; 100_000];
    let chunked = b"6\r\n{\"a\": \r\n1\r\n1\r\n0\r\n\r\n".to_vec();
    let mut all = vec![("chunked", "Transfer-Encoding: chunked".to_string(), chunked)];
    for (name, bytes) in [
        ("none", &b""[..]),
        ("small", b"{\"a\": 1"),
        ("large", &large),
    ] {
        let (frame, bytes) = sized(bytes);
        all.push((name, frame, bytes));
    }
    all
}

async fn closed() -> (Stand, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, line) = new_key("ann").expect("random numbers");
    let path = folder.path().join("keys");
    fs::write(&path, format!("{line}\n")).expect("written");
    let options = GatewayOptions {
        keys: Some(path),
        ..options()
    };
    (
        Stand::with(options, Script::text("x"), None).await,
        key,
        folder,
    )
}

fn head(line: &str, field: &str, key: &str, frame: &str) -> String {
    let key = match field.starts_with("Authorization") {
        true => String::new(),
        false => format!("Authorization: Bearer {key}\r\n"),
    };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{key}{field}\r\n{frame}\r\n\r\n")
}

/// The next request on the connection is answered as itself.
async fn goes_on(wire: &mut Wire, key: &str, what: &str) {
    let next = head("GET /v1/models", "X-A: b", key, "X-B: c");
    wire.send(next.as_bytes()).await;
    let reply = wire
        .reply()
        .await
        .unwrap_or_else(|| panic!("it ended: {what}"));
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
}

/// Bodies that come with the head, and those that come later, as of clients that send both apart.
#[tokio::test]
async fn small_bodies_of_refused_requests_are_taken_off() {
    let (stand, key, _folder) = closed().await;
    for (status, line, field) in REFUSED {
        for (name, frame, body) in bodies() {
            for pause in [0, 30] {
                let what = format!("{status} {line}, body {name} after {pause} ms");
                let mut wire = Wire::connect(stand.addr).await;
                let head = head(line, field, &key, &frame);
                match pause {
                    0 => wire.send(&[head.as_bytes(), &body].concat()).await,
                    _ => {
                        wire.send(head.as_bytes()).await;
                        sleep(Duration::from_millis(pause)).await;
                        wire.send(&body).await;
                    }
                }
                let reply = wire.reply().await.expect(&what);
                assert_eq!(reply.status, status, "{what}: {reply:?}");
                assert!(!reply.closes(), "{what}: {}", reply.head);
                goes_on(&mut wire, &key, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_asks_too_often_keeps_its_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, line) = new_key("ann").expect("random numbers");
    let path = folder.path().join("keys");
    fs::write(&path, format!("{line} rpm=1\n")).expect("written");
    let options = GatewayOptions {
        keys: Some(path),
        ..options()
    };
    let stand = Stand::with(options, Script::text("x"), None).await;
    let mut wire = Wire::connect(stand.addr).await;
    let body = "{\"prompt\": \"a\"}";
    for status in [200, 429, 429] {
        let frame = format!("Content-Length: {}", body.len());
        let kind = "Content-Type: application/json";
        let head = head("POST /v1/completions", kind, &key, &frame);
        wire.send(head.as_bytes()).await;
        sleep(Duration::from_millis(20)).await;
        wire.send(body.as_bytes()).await;
        let reply = wire.reply().await.expect("a response");
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(!reply.closes(), "{}", reply.head);
    }
}

/// A body that is too long to be dropped ends the connection; the response says so and arrives.
#[tokio::test]
async fn large_bodies_end_the_connection_after_the_response() {
    let (stand, key, _folder) = closed().await;
    let long = vec![b'x'; 3 << 20];
    let kind = "Content-Type: application/json";
    let cases = [
        (404, "POST /nope", kind, long.len()),
        (
            401,
            "POST /v1/completions",
            "Authorization: Bearer x",
            long.len(),
        ),
        (413, "POST /v1/completions", kind, 1 << 40),
    ];
    for (status, line, field, length) in cases {
        let mut wire = Wire::connect(stand.addr).await;
        let head = head(line, field, &key, &format!("Content-Length: {length}"));
        wire.send(head.as_bytes()).await;
        wire.send(&long).await;
        let reply = wire.reply().await.expect("the response arrives");
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.closes(), "{}", reply.head);
        assert!(reply.body.contains("\"error\""), "{reply:?}");
        assert!(wire.ends().await, "{status} {line}");
    }
}

/// A client that waits for "100 Continue" gets the refusal instead.
#[tokio::test]
async fn bodies_that_are_asked_for_first() {
    let (stand, key, _folder) = closed().await;
    let expect = "Expect: 100-continue\r\nContent-Length: 15";
    for (status, line, field) in REFUSED.into_iter().filter(|(status, ..)| *status != 400) {
        let mut wire = Wire::connect(stand.addr).await;
        wire.send(head(line, field, &key, expect).as_bytes()).await;
        let reply = wire.reply().await.expect("a response");
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.closes(), "{}", reply.head);
        assert!(wire.ends().await, "{status} {line}");
    }
    let mut wire = Wire::connect(stand.addr).await;
    let kind = "Content-Type: application/json";
    let head = head("POST /v1/completions", kind, &key, expect);
    wire.send(head.as_bytes()).await;
    assert_eq!(wire.reply().await.expect("a word").status, 100);
    wire.send(b"{\"prompt\": \"a\"} ").await;
    assert_eq!(wire.reply().await.expect("a response").status, 200);
}

/// After a body that breaks off, no other request can follow.
#[tokio::test]
async fn broken_bodies_end_the_connection() {
    let (stand, key, _folder) = closed().await;
    let kind = "Content-Type: application/json";
    for line in ["POST /v1/completions", "POST /nope"] {
        let mut wire = Wire::connect(stand.addr).await;
        let head = head(line, kind, &key, "Transfer-Encoding: chunked");
        wire.send(head.as_bytes()).await;
        wire.send(b"zz\r\n{}\r\n0\r\n\r\n").await;
        if let Some(reply) = wire.reply().await {
            assert!([400, 404].contains(&reply.status), "{reply:?}");
            assert!(reply.closes(), "{}", reply.head);
        }
        assert!(wire.ends().await, "{line}");
    }
}
