//! Hostile clients, and clients with bugs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Reply, post_bytes};
use crate::script::Script;
use crate::stand::{Stand, chat_body, options};

const CHAT: &str = "/v1/chat/completions";

/// Sends bytes, and reads until the gateway closes.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("the gateway listens");
    stream.write_all(bytes).await.expect("sent");
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let all = timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await;
    // A connection that is reset has ended, too.
    let _ = all.expect("the gateway closes");
    String::from_utf8_lossy(&text).into_owned()
}

async fn impatient() -> Stand {
    let mut options = options();
    options.limits.header_time = Duration::from_millis(300);
    options.limits.body_time = Duration::from_millis(300);
    options.limits.write_time = Duration::from_millis(500);
    Stand::with(options, Script::text("x"), None).await
}

async fn is_served(stand: &Stand) {
    let reply = stand.chat(json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let stand = Stand::saying("x").await;
    // By what the header says, before anything is sent.
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 1000000000000\r\n\r\n"
    );
    let reply = raw_start(stand.addr, head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    assert!(reply.contains("invalid_request_error"), "{reply}");
    // By what is sent, where the header says nothing.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let mut stream = TcpStream::connect(stand.addr)
        .await
        .expect("the gateway listens");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..16 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut start = [0; 12];
    if stream.read_exact(&mut start).await.is_ok() {
        assert_eq!(&start, b"HTTP/1.1 413");
    }
    is_served(&stand).await;
}

/// Sends bytes, and reads what comes first.
async fn raw_start(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("the gateway listens");
    stream.write_all(bytes).await.expect("sent");
    let mut text = vec![0; 4_096];
    let read = timeout(Duration::from_secs(20), stream.read(&mut text)).await;
    let length = read.expect("an answer").expect("an answer");
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[tokio::test]
async fn slow_clients_are_left() {
    let stand = impatient().await;
    // Nothing at all.
    let started = Instant::now();
    raw(stand.addr, b"").await;
    // A header without end, a byte at a time.
    let mut stream = TcpStream::connect(stand.addr)
        .await
        .expect("the gateway listens");
    let mut sent = 0;
    for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
        .iter()
        .chain(&[b'a'; 4_000])
    {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        sleep(Duration::from_millis(20)).await;
    }
    assert!(sent < 1_000, "{sent} bytes of a header were waited for");
    // A body that does not come.
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    let reply = raw(stand.addr, head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(started.elapsed() < Duration::from_secs(20));
    is_served(&stand).await;
}

#[tokio::test]
async fn a_long_answer_outlives_all_times_to_wait() {
    let mut script = Script::text("abc");
    script.pause = Duration::from_millis(400);
    let mut options = options();
    options.limits.header_time = Duration::from_millis(200);
    options.limits.body_time = Duration::from_millis(200);
    options.limits.write_time = Duration::from_millis(200);
    let stand = Stand::with(options, script, None).await;
    for stream in [false, true] {
        let reply = stand.chat(json!({"stream": stream})).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(reply.text.contains("stop"), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    let mut script = Script::text(&"x".repeat(1_900));
    script.tokens.pop();
    script.tokens = script.tokens.repeat(400);
    let mut options = options();
    options.limits.write_time = Duration::from_millis(500);
    let stand = Stand::with(options, script, None).await;
    let body = chat_body(json!({"stream": true, "n": 16, "ignore_eos": true})).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("set");
    let mut stream = socket
        .connect(stand.addr)
        .await
        .expect("the gateway listens");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stand.engine.cancelled(1).await;
    drop(stream);
}

#[tokio::test]
async fn broken_bodies_are_told_as_such() {
    let stand = Stand::saying("x").await;
    let deep = |levels: usize| {
        let body = format!(
            "{{\"messages\":{}{}}}",
            "[".repeat(levels),
            "]".repeat(levels)
        );
        body.into_bytes()
    };
    let cases: [(Vec<u8>, &str); 12] = [
        (b"".to_vec(), "no JSON"),
        (b"{".to_vec(), "no JSON"),
        (b"{\"messages\": [}".to_vec(), "no JSON"),
        (b"{} {}".to_vec(), "no JSON"),
        (b"{\"temperature\": NaN}".to_vec(), "no JSON"),
        (b"{\"temperature\": 1e999}".to_vec(), "no JSON"),
        (b"[]".to_vec(), "JSON object"),
        (b"\"x\"".to_vec(), "JSON object"),
        (b"{\"user\": \"\xC3\x28\"}".to_vec(), "no UTF-8"),
        (b"{\"user\": \"\\ud800\"}".to_vec(), "no JSON"),
        (deep(64), "deeper than 64"),
        (deep(1_000_000), "deeper than 64"),
    ];
    for (body, reason) in cases {
        let reply = post_bytes(stand.addr, CHAT, None, body).await;
        let message = reply.refused(400, None, None);
        assert!(message.contains(reason), "{message}");
    }
    // Nesting within the limit, or inside of a text, is accepted.
    let reply = post_bytes(stand.addr, CHAT, None, deep(63)).await;
    reply.refused(400, Some("messages[0]"), Some("invalid_type"));
    let brackets = "[".repeat(1_000);
    let body = json!({"messages": [{"role": "user", "content": brackets}]});
    assert_eq!(stand.post(CHAT, &body).await.status, 200);
}

#[tokio::test]
async fn other_types_of_bodies_are_refused() {
    let stand = Stand::saying("x").await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let body = chat_body(json!({})).to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = raw_start(stand.addr, head.as_bytes()).await;
        assert!(reply.starts_with("HTTP/1.1 415"), "{reply}");
    }
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection() {
    let stand = impatient().await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X: y\r\n".repeat(500)
    );
    let cases: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect(stand.addr)
            .await
            .expect("the gateway listens");
        // It may close before it has all.
        let _ = stream.write_all(bytes).await;
        let reply = read(&mut stream).await;
        let status: &str = reply.split(' ').nth(1).unwrap_or("4");
        assert!(status.starts_with('4'), "{reply}");
    }
    is_served(&stand).await;
}

#[tokio::test]
async fn foreign_names_of_this_machine_are_refused() {
    let stand = Stand::saying("x").await;
    let request = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let reply = raw_start(stand.addr, request.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
}

/// How many files this process may have open; a usual bound where the system does not tell.
fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or(1_024)
}

#[tokio::test]
async fn thousands_of_idle_connections_harm_nobody() {
    let mut options = options();
    options.limits.header_time = Duration::from_secs(60);
    options.limits.connections = 2_600;
    let stand = Stand::with(options, Script::text("x"), None).await;
    // Each takes two of this process's files, and other tests run at the same time.
    let count = 2_500.min(open_files_max() / 4);
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(TcpStream::connect(stand.addr).await.unwrap());
    }
    let started = Instant::now();
    for _ in 0..20 {
        is_served(&stand).await;
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn connections_over_the_bound_are_told_so() {
    let mut options = options();
    options.limits.connections = 2;
    let stand = Stand::with(options, Script::text("x"), None).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(
            TcpStream::connect(stand.addr)
                .await
                .expect("the gateway listens"),
        );
    }
    sleep(Duration::from_millis(100)).await;
    let reply = raw(stand.addr, b"").await;
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    assert!(
        reply.contains("Retry-After: 1") && reply.contains("overloaded"),
        "{reply}"
    );
    held.pop();
    sleep(Duration::from_millis(100)).await;
    is_served(&stand).await;
}

#[tokio::test]
async fn requests_on_one_connection_follow_each_other() {
    let stand = Stand::saying("x").await;
    stand.make_ready();
    let requests = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3)
        + "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let reply = raw(stand.addr, requests.as_bytes()).await;
    assert_eq!(reply.matches("HTTP/1.1 200").count(), 4, "{reply}");
}

/// The error object is what clients parse, whatever went wrong.
#[tokio::test]
async fn errors_are_json() {
    let stand = Stand::saying("x").await;
    let reply: Reply = stand.get("/none").await;
    assert_eq!(reply.header("content-type"), "application/json");
}
