//! `concord chat --verify`, against a server that is honest and a gateway that is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use concord_gateway::receipt_file;
use concord_proto::serving::{BatchedReceipt, Finish, Receipt};
use concord_proto::{Digest, Keypair, canonical};
use serde_json::Value;

use crate::pool::{PROGRAM, Ran};
use crate::receipts::event;
use crate::server::{PATIENCE, Server, tiny};

/// What a gateway in between makes of a request or of a reply, by the path.
type Alter = dyn FnMut(&str, String) -> String + Send;

/// A gateway in between, which alters what it passes on; gives its address.
fn between(server: &Server, mut asked: Box<Alter>, mut said: Box<Alter>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let upstream = server.url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (path, body) = request(&mut stream);
            let (status, reply) = passed_on(&upstream, &path, body.map(|body| asked(&path, body)));
            let reply = said(&path, reply);
            let head = format!(
                "HTTP/1.1 {status} .\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                reply.len()
            );
            let _ = stream.write_all((head + &reply).as_bytes());
        }
    });
    url
}

/// The path of a request, and its body if it is a POST.
fn request(stream: &mut TcpStream) -> (String, Option<String>) {
    let mut reader = BufReader::new(stream);
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
    let path = first.split(' ').nth(1).unwrap().to_string();
    let is_post = first.starts_with("POST ");
    (path, is_post.then(|| String::from_utf8(body).unwrap()))
}

fn passed_on(upstream: &str, path: &str, body: Option<String>) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.timeout_global(Some(PATIENCE)).build().new_agent();
    let url = format!("{upstream}{path}");
    let sent = match body {
        None => agent.get(&url).call(),
        Some(body) => {
            let post = agent.post(&url).header("Content-Type", "application/json");
            post.send(body)
        }
    };
    let mut reply = sent.unwrap();
    let text = reply.body_mut().read_to_string().unwrap();
    (reply.status().as_u16(), text)
}

/// A conversation of these lines, each answer of which is checked.
fn chat(url: &str, model: &Path, more: &[&str], lines: &str) -> Ran {
    let mut child = Command::new(PROGRAM)
        .args(more)
        .args(["chat", "--server", url, "--max-tokens", "24", "--seed", "5"])
        .arg("--verify")
        .arg(model)
        .env_remove("CONCORD_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn an_answer_is_computed_again_by_who_asked() {
    let Some((model, _)) = tiny() else { return };
    let server = Server::with_stages(&model, 2, &[]);
    let ran = chat(&server.url, &model, &["--json"], "Hello\nAnd then?\n");
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let checks = ran.stdout.matches("\"event\":\"verified\"").count();
    assert_eq!(checks, 2, "{ran:#?}");
    let verified = event(&ran, "verified");
    let shown = verified["shown"].to_string();
    for words in [
        "each was computed and drawn again on this machine",
        "the answer ended",
        "each of 2 stages signed",
        "it is signed for this very request",
        "the text that came is the one that was signed",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    let not_shown = verified["not_shown"].to_string();
    assert!(not_shown.contains("when it was computed"), "{not_shown}");
    let said = chat(&server.url, &model, &[], "Hello\n").stderr;
    assert!(said.contains("verified: the model gives these"), "{said}");
    // Another model can say nothing.
    let other = model.with_file_name("tiny-qwen2");
    let ran = chat(&server.url, &other, &[], "Hello\n");
    ran.unshown(&[
        "not verified: the model is another one",
        "could not be judged",
    ]);
}

/// A receipt that the gateway signs anew, with a key of its own.
fn signed_anew(text: &str, change: impl Fn(&mut Receipt)) -> String {
    let mut receipt = receipt_file::from_json(text).unwrap().open().unwrap();
    change(&mut receipt);
    let key = Keypair::from_secret([7; 32]);
    let signed = BatchedReceipt::alone(&key, &receipt);
    receipt_file::to_json(&signed).unwrap().to_string()
}

/// A receipt in which what is beside the signed bytes is another.
fn with_proof(text: &str, change: impl Fn(&mut BatchedReceipt)) -> String {
    let mut signed = receipt_file::from_json(text).unwrap();
    change(&mut signed);
    let mut file: Value = serde_json::from_str(text).unwrap();
    let bytes = canonical::encode(&signed);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    file["signed"] = hex.into();
    file.to_string()
}

/// Alters the replies whose path begins so.
fn on(start: &'static str, alter: fn(&str) -> String) -> Box<Alter> {
    Box::new(move |path, text| match path.starts_with(start) {
        true => alter(&text),
        false => text,
    })
}

/// An answer that is said to have ended by itself.
fn stopped(text: &str) -> String {
    text.replace("\"finish_reason\":\"length\"", "\"finish_reason\":\"stop\"")
}

const CHAT: &str = "/v1/chat/";
const RECEIPT: &str = "/v1/receipts/";

#[test]
fn each_lie_of_a_gateway_is_refused_with_words() {
    let Some((model, _)) = tiny() else { return };
    let server = Server::with_stages(&model, 1, &[]);
    let nothing = || on("-", str::to_string);
    for (words, lie) in lies() {
        let url = between(&server, nothing(), lie);
        let ran = chat(&url, &model, &["--json"], "Hello\nAnd then?\n");
        ran.refused(&["an answer of this conversation was refuted"]);
        let refuted = event(&ran, "refuted");
        let reason = refuted["reason"].as_str().unwrap();
        println!("{reason}");
        assert!(reason.contains(words), "{words}: {reason}");
    }
    // Another question than the client's goes to the model.
    let asks = on(CHAT, |text| text.replace("\"seed\":5", "\"seed\":6"));
    let url = between(&server, asks, nothing());
    let ran = chat(&url, &model, &["--json"], "Hello\n");
    ran.refused(&["refuted"]);
    let refuted = event(&ran, "refuted");
    assert!(
        refuted["reason"]
            .as_str()
            .unwrap()
            .contains("the request is not")
    );
    // No receipt at all is no proof, and no refutation.
    let url = between(&server, nothing(), on(RECEIPT, |_| "{}".to_string()));
    let ran = chat(&url, &model, &[], "Hello\n");
    ran.unshown(&["not verified", "this is no receipt"]);
}

/// What a gateway may alter, with words of what is said then.
fn lies() -> [(&'static str, Box<Alter>); 8] {
    [
        (
            "the text is not that of this client",
            on(CHAT, |text| {
                text.replacen("\"content\":\"", "\"content\":\"No! ", 1)
            }),
        ),
        (
            "why it ended is not that of this client",
            on(CHAT, |text| {
                let altered = stopped(text);
                assert_ne!(altered, text);
                altered
            }),
        ),
        ("its name is not that of this client", {
            let mut first: Option<String> = None;
            Box::new(move |path, text| match path.starts_with(RECEIPT) {
                true => first.get_or_insert(text).clone(),
                false => text,
            })
        }),
        (
            "not in the batch",
            on(RECEIPT, |text| {
                with_proof(text, |signed| signed.path.siblings.push(Digest([1; 32])))
            }),
        ),
        (
            "the signature of",
            on(RECEIPT, |text| {
                with_proof(text, |signed| signed.batch.signature[9] ^= 1)
            }),
        ),
        (
            "'answer' otherwise than its signed part does",
            on(RECEIPT, |text| {
                let mut file: Value = serde_json::from_str(text).unwrap();
                file["answer"][2] = 1.into();
                file.to_string()
            }),
        ),
        // The reason in the answer and that in the receipt are the same lie.
        (
            "it is said to end with a stop text, and has none",
            Box::new(|path, text| match path.starts_with(RECEIPT) {
                true => signed_anew(&text, |receipt| receipt.finish = Finish::StopText),
                false => stopped(&text),
            }),
        ),
        (
            "another generation",
            on(RECEIPT, |text| {
                signed_anew(text, |receipt| {
                    receipt.spec.stop_texts.push("x".to_string())
                })
            }),
        ),
    ]
}

/// A worker that gives out another token than its model draws.
#[test]
fn a_worker_that_lies_is_named() {
    let Some((model, _)) = tiny() else { return };
    let mut server = Server::start(&model, &[]);
    server.join("worker", &["--threads", "1", "--lie", "wrong-token@6"]);
    server.ready();
    let ran = chat(&server.url, &model, &["--json"], "Hello\n");
    ran.refused(&["refuted"]);
    let reason = event(&ran, "refuted")["reason"].to_string();
    assert!(reason.contains(&server.key(0)[..8]), "{reason}");
    assert!(reason.contains("of the answer, and it is"), "{reason}");
}
