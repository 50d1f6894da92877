//! `concord chat --server`, against an API that does what tests say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

/// An answer in two pieces.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Connection: close\r\n\r\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"hi \"}}]}\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"there\"},\"finish_reason\":\"stop\"}]}\n\n\
    data: [DONE]\n\n";

/// An API that answers each question with the next of these bytes; gives its address and the bodies
/// that it was sent.
fn api(replies: Vec<String>) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        let mut replies = replies.into_iter();
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let reply = match first.starts_with("GET ") {
                true => json("200 OK", "{\"data\":[{\"id\":\"m\"}]}"),
                false => {
                    sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
                    replies.next().unwrap()
                }
            };
            // A client that has heard enough is gone.
            let _ = reader.into_inner().write_all(reply.as_bytes());
        }
    });
    (url, bodies)
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn chat(url: &str, lines: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["--json", "chat", "--server", url])
        .env_remove("CONCORD_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

#[test]
fn an_answer_may_be_as_long_as_fits_unless_somebody_says_otherwise() {
    let (url, bodies) = api(vec![ANSWER.to_string(); 2]);
    let output = chat(&url, "Hello\n/set\n/set max_tokens 5\nAgain\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("temperature any, top_p any, max_tokens any, seed any"),
        "{stderr}"
    );
    assert!(
        stderr.contains("temperature any, top_p any, max_tokens 5, seed any"),
        "{stderr}"
    );
    let first = bodies.recv().unwrap();
    assert!(first.get("max_tokens").is_none(), "{first}");
    let second = bodies.recv().unwrap();
    assert_eq!(second["max_tokens"], 5);
    // The first answer is part of the second question.
    assert_eq!(second["messages"][1]["content"], "hi there");
}

/// What goes wrong is told with a remedy, and the conversation goes on.
#[test]
fn failures_are_told_and_the_conversation_goes_on() {
    let error = |status: &str, code: &str| {
        let body = format!("{{\"error\":{{\"message\":\"It is so.\",\"code\":\"{code}\"}}}}");
        json(status, &body)
    };
    let begun = ANSWER.split("data: [DONE]").next().unwrap();
    let broken = begun.replace("Connection: close", "Content-Length: 100000");
    let event = "data: {\"error\":{\"message\":\"a stage is lost\"}}\n\n";
    let cases: [(String, &[&str]); 7] = [
        (
            error("401 Unauthorized", "invalid_api_key"),
            &["It is so; give the key by --api-key"],
        ),
        (
            error("400 Bad Request", "context_length_exceeded"),
            &["It is so; /undo or /clear", "/set max_tokens any"],
        ),
        (
            error("503 Service Unavailable", "not_ready"),
            &["error: It is so"],
        ),
        (
            json("500 Internal Server Error", "oops"),
            &["the API answers 500"],
        ),
        (begun.to_string(), &["in the middle of the answer"]),
        (broken, &["in the middle of the answer"]),
        (format!("{begun}{event}"), &["a stage is lost"]),
    ];
    for (reply, words) in cases {
        let (url, bodies) = api(vec![reply.clone(), ANSWER.to_string()]);
        let output = chat(&url, "Hello\nAgain\n");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{reply}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in {stderr}");
        }
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("\"hi there\""), "{reply}: {stdout}");
        let asked = bodies.iter().take(2).last().unwrap();
        let messages = asked["messages"].as_array().unwrap();
        // A question that got nothing is taken back; what was said stays.
        let expected = if reply.starts_with("HTTP/1.1 200") {
            3
        } else {
            1
        };
        assert_eq!(messages.len(), expected, "{reply}: {asked}");
    }
}

#[test]
fn a_server_that_is_not_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let output = chat(&url, "Hello\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("no API at {url}")), "{stderr}");
}
