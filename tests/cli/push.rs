//! `concord push`, against a server that has the hub's API, and keeps what it is sent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A request: method, path, headers in small letters, body.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// The server: what it was asked, in order.
#[derive(Clone)]
struct Hub {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Bytes of a part of `adapter_model.safetensors`, which is sent in parts.
const CHUNK: usize = 100;

impl Hub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
        };
        let server = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        hub
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_string());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let line = line.trim_end_matches(" HTTP/1.1\r\n").to_string();
        let asked = Asked {
            line,
            headers,
            body,
        };
        self.asked.lock().unwrap().push(asked.clone());
        let (status, body) = self.reply(&asked);
        let text = body.to_string();
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nETag: \"{}\"\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{text}",
            asked.body.len(),
            text.len()
        );
        reader.into_inner().write_all(reply.as_bytes()).unwrap();
    }

    fn reply(&self, asked: &Asked) -> (&'static str, Value) {
        let said: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let (method, path) = asked.line.split_once(' ').unwrap();
        let is_store = path.starts_with("/store/");
        if !is_store && asked.headers.get("authorization").map(String::as_str) != Some("Bearer t0k")
        {
            return ("401 Unauthorized", json!({"error": "Invalid credentials"}));
        }
        match (method, path) {
            ("POST", "/api/repos/create") if said["name"] == "old" => (
                "409 Conflict",
                json!({"error": "You already created this model repo"}),
            ),
            ("POST", "/api/repos/create") => ("200 OK", json!({"url": self.url})),
            ("POST", path) if path.ends_with("/preupload/main") => {
                let files = said["files"].as_array().unwrap().iter().map(|file| {
                    let is_large = file["path"].as_str().unwrap().ends_with(".safetensors");
                    let mode = if is_large { "lfs" } else { "regular" };
                    json!({"path": file["path"], "uploadMode": mode})
                });
                ("200 OK", json!({"files": files.collect::<Vec<_>>()}))
            }
            ("POST", path) if path.ends_with(".git/info/lfs/objects/batch") => {
                ("200 OK", self.batch(&said["objects"][0]))
            }
            ("POST", path) if path.ends_with("/commit/main") => (
                "200 OK",
                json!({"commitUrl": format!("{}/commit/1", self.url)}),
            ),
            ("PUT" | "POST", _) => ("200 OK", json!({})),
            _ => ("404 Not Found", json!({"error": "Not found"})),
        }
    }

    fn batch(&self, object: &Value) -> Value {
        let at = |path: &str| format!("{}/store/{path}", self.url);
        let size = object["size"].as_u64().unwrap() as usize;
        let upload = match size > CHUNK {
            false => json!({"href": at("whole"), "header": {"x-own": "yes"}}),
            true => {
                let mut header = json!({"chunk_size": CHUNK.to_string()});
                for part in 1..=size.div_ceil(CHUNK) {
                    header[format!("{part:05}")] = json!(at(&format!("part{part}")));
                }
                json!({"href": format!("{}/api/complete", self.url), "header": header})
            }
        };
        let verify = json!({"href": format!("{}/api/verify", self.url)});
        json!({"objects": [{"oid": object["oid"], "size": size,
                            "actions": {"upload": upload, "verify": verify}}]})
    }

    fn push(&self, folder: &std::path::Path, more: &[&str], token: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_concord"))
            .args(["push", folder.to_str().unwrap()])
            .args(more)
            .env("HF_ENDPOINT", &self.url)
            .env("HF_TOKEN", token)
            .env_remove("HF_HUB_OFFLINE")
            .env_remove("TRANSFORMERS_OFFLINE")
            .output()
            .unwrap()
    }
}

/// An adapter's folder, in as far as a server sees it.
fn result() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write(
        "adapter_config.json",
        br#"{"base_model_name_or_path": "a/b"}"#,
    );
    write("adapter_model.safetensors", &[7; 250]);
    write("small.safetensors", &[8; 20]);
    write("README.md", b"# mine\n");
    write("proof/job.spec", b"spec");
    write(".concord-job.json", b"{}");
    write("checkpoint-3/x", b"old");
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_folder_becomes_a_repository() {
    let (hub, folder) = (Hub::start(), result());
    let ran = hub.push(folder.path(), &["me/mine", "--private", "--json"], "t0k");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(told["commit"], format!("{}/commit/1", hub.url));
    let asked = hub.asked.lock().unwrap().clone();
    let first: Value = serde_json::from_slice(&asked[0].body).unwrap();
    let expected = json!({"name": "mine", "organization": "me", "private": true, "type": "model"});
    assert_eq!(first, expected);
    // The commit names all files but those that are hidden or of a checkpoint.
    let commit = asked.last().unwrap();
    assert_eq!(commit.line, "POST /api/models/me/mine/commit/main");
    let lines = text(&commit.body);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let paths: Vec<&str> = lines[1..]
        .iter()
        .map(|line| line["value"]["path"].as_str().unwrap())
        .collect();
    let all = [
        "README.md",
        "adapter_config.json",
        "proof/job.spec",
        "adapter_model.safetensors",
        "small.safetensors",
    ];
    assert_eq!(paths, all);
    assert_eq!(lines[1]["value"]["content"], "IyBtaW5lCg==");
    // What sha256sum says of 250 bytes of 7.
    let oid = &lines[4]["value"]["oid"];
    assert_eq!(oid.as_str().map(str::len), Some(64));
    // The large file went in three parts, to a store that is never shown the token.
    let of_store: Vec<&Asked> = asked
        .iter()
        .filter(|asked| asked.line.contains("/store/"))
        .collect();
    let sizes: Vec<usize> = of_store.iter().map(|asked| asked.body.len()).collect();
    assert_eq!(sizes, [100, 100, 50, 20]);
    assert!(
        of_store
            .iter()
            .all(|asked| !asked.headers.contains_key("authorization"))
    );
    assert_eq!(of_store[3].headers["x-own"], "yes");
    let complete = asked
        .iter()
        .find(|asked| asked.line.ends_with("/api/complete"))
        .unwrap();
    let complete: Value = serde_json::from_slice(&complete.body).unwrap();
    assert_eq!(&complete["oid"], oid);
    assert_eq!(
        complete["parts"][2],
        json!({"partNumber": 3, "etag": "\"50\""})
    );
}

#[test]
fn what_the_hub_refuses_is_said() {
    let (hub, folder) = (Hub::start(), result());
    let ran = hub.push(folder.path(), &["me/mine"], "wrong");
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        said.contains("Invalid credentials") && said.contains("HF_TOKEN"),
        "{said}"
    );
    assert!(!said.contains("wrong"), "a token is not shown: {said}");
    // A repository that is there gets another commit.
    let ran = hub.push(folder.path(), &["me/old"], "t0k");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    for (name, words) in [("mine", "owner/name"), ("me/../x", "owner/name")] {
        let ran = hub.push(folder.path(), &[name], "t0k");
        assert!(text(&ran.stderr).contains(words), "{}", text(&ran.stderr));
    }
    let empty = tempfile::tempdir().unwrap();
    let ran = hub.push(empty.path(), &["me/mine"], "t0k");
    assert!(
        text(&ran.stderr).contains("is no result"),
        "{}",
        text(&ran.stderr)
    );
}

#[test]
fn only_what_a_result_has_leaves_this_machine() {
    let (hub, folder) = (Hub::start(), result());
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("notes.txt"), "mine").unwrap();
    let ran = hub.push(folder.path(), &["me/mine"], "t0k");
    let said = text(&ran.stderr);
    assert!(
        said.contains("notes.txt") && said.contains("--all-files"),
        "{said}"
    );
    assert!(hub.asked.lock().unwrap().is_empty(), "nothing was sent");
    let ran = hub.push(folder.path(), &["me/mine", "--all-files", "--json"], "t0k");
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let files = told["files"].as_array().unwrap();
    assert!(files.contains(&json!("sub/notes.txt")), "{told}");
    #[cfg(unix)]
    for name in ["chat_template.jinja", "linked"] {
        let (hub, other) = (Hub::start(), result());
        std::os::unix::fs::symlink(&sub, other.path().join(name)).unwrap();
        let ran = hub.push(other.path(), &["me/mine", "--all-files"], "t0k");
        let said = text(&ran.stderr);
        assert!(said.contains(name) && said.contains("is a link"), "{said}");
        assert!(hub.asked.lock().unwrap().is_empty(), "nothing was sent");
    }
}
