//! The hub, against a server of our own on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use concord_models::hub::ModelHub;
use concord_models::weights::ModelFolder;
use concord_text::TextTokenizer;
use serde_json::json;

use crate::fixtures::{config_json, says, write_model};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// A server of one repository, `owner/tiny`, whose commit is `SHA`. Its thread ends with the test
/// process.
pub struct Server {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Server {
        Self::start_cutting(files, usize::MAX)
    }

    /// A server that closes every connection after `most` bytes of a body.
    pub fn start_cutting(files: BTreeMap<String, Vec<u8>>, most: usize) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let authorizations = Arc::new(Mutex::new(Vec::new()));
        let (log, shown) = (Arc::clone(&requests), Arc::clone(&authorizations));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client may go away at any time.
                let _ = answer(stream, &files, most, &log, &shown);
            }
        });
        Server {
            endpoint,
            requests,
            authorizations,
        }
    }

    /// The `Authorization` of each request that had one.
    pub fn authorizations(&self) -> Vec<String> {
        std::mem::take(&mut self.authorizations.lock().unwrap())
    }

    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Answers one request, then closes.
fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    most: usize,
    log: &Mutex<Vec<String>>,
    shown: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().unwrap_or(Ok(String::new()))?;
    let path = path.split(' ').nth(1).unwrap_or_default().to_string();
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            shown.lock().unwrap().push(value.to_string());
        }
        let line = line.to_ascii_lowercase();
        if let Some(asked) = line.strip_prefix("range: bytes=") {
            let (from, to) = asked.split_once('-').unwrap_or((asked, ""));
            range = Some((from.parse().unwrap_or(0usize), to.parse::<usize>().ok()));
        }
    }
    log.lock().unwrap().push(path.clone());
    let (status, headers, body) = respond(&path, range, files);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body[..body.len().min(most)])
}

fn respond(
    path: &str,
    range: Option<(usize, Option<usize>)>,
    files: &BTreeMap<String, Vec<u8>>,
) -> (&'static str, String, Vec<u8>) {
    for (repo, status) in [("gated", "401 Unauthorized"), ("closed", "403 Forbidden")] {
        if path.starts_with(&format!("/api/models/owner/{repo}/")) {
            return (status, String::new(), Vec::new());
        }
    }
    let kinds = ["models", "datasets"];
    let info = |kind| format!("/api/{kind}/owner/tiny/revision/main");
    if kinds.into_iter().any(|kind| path == info(kind)) {
        let siblings: Vec<_> = files
            .keys()
            .map(|name| json!({ "rfilename": name }))
            .collect();
        let info = json!({ "sha": SHA, "siblings": siblings }).to_string();
        return ("200 OK", String::new(), info.into_bytes());
    }
    let file = path.trim_start_matches("/datasets");
    let file = file.strip_prefix(&format!("/owner/tiny/resolve/{SHA}/"));
    match (file.and_then(|name| files.get(name)), range) {
        (Some(content), Some((from, _))) if from >= content.len() => {
            ("416 Range Not Satisfiable", String::new(), Vec::new())
        }
        (Some(content), Some((from, to))) => {
            let end = to.map_or(content.len(), |last| content.len().min(last + 1));
            let headers = format!(
                "x-repo-commit: {SHA}\r\nETag: \"{}\"\r\nContent-Range: bytes {from}-{}/{}\r\n",
                path.rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .replace('.', "-"),
                end - 1,
                content.len()
            );
            ("206 Partial Content", headers, content[from..end].to_vec())
        }
        _ => ("404 Not Found", String::new(), Vec::new()),
    }
}

/// The files of a model folder made here, with the weights as two shards.
fn sharded() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let tensors = write_model(folder.path(), &config_json());
    let mut files = read_all(folder.path());
    files.remove("model.safetensors");
    let mut map = serde_json::Map::new();
    let halves: [BTreeMap<_, _>; 2] = [0, 1].map(|half| {
        let part = tensors
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 2 == half);
        part.map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect()
    });
    for (index, half) in halves.iter().enumerate() {
        let shard = format!("model-{index}.safetensors");
        map.extend(half.keys().map(|name| (name.clone(), shard.clone().into())));
        let path = folder.path().join(&shard);
        let dtype = |_: &str| concord_models::export::ExportDtype::F32;
        concord_models::export::write_tensors(&path, half, dtype).unwrap();
        files.insert(shard, fs::read(path).unwrap());
    }
    let index = json!({ "weight_map": map }).to_string();
    files.insert(
        "model.safetensors.index.json".to_string(),
        index.into_bytes(),
    );
    files
}

pub fn read_all(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    entries
        .map(|path| (name(&path), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_model_by_name() {
    for sharded_weights in [false, true] {
        let made = tempfile::tempdir().unwrap();
        write_model(made.path(), &config_json());
        let mut files = if sharded_weights {
            sharded()
        } else {
            read_all(made.path())
        };
        files.insert("README.md".to_string(), b"not needed".to_vec());
        files.insert("pytorch_model.bin".to_string(), b"not needed".to_vec());
        let server = Server::start(files);
        let cache = tempfile::tempdir().unwrap();
        let hub = ModelHub {
            endpoint: Some(server.endpoint.clone()),
            cache: Some(cache.path().to_path_buf()),
            ..ModelHub::default()
        };
        let mut last = BTreeMap::new();
        let mut progress = |step: concord_models::hub::Download| {
            last.insert(step.file.to_string(), (step.done_bytes, step.total_bytes));
        };
        let folder = hub.resolve("owner/tiny", &mut progress).unwrap();
        let model = ModelFolder::open(&folder).unwrap();
        TextTokenizer::open(&folder)
            .unwrap()
            .check(model.config().vocab)
            .unwrap();
        for spec in model.config().tensors() {
            model.load(&spec.name).unwrap();
        }
        assert_eq!(last.len(), if sharded_weights { 6 } else { 4 }, "{last:?}");
        assert!(
            last.values()
                .all(|(done, total)| done == total && *done > 0),
            "{last:?}"
        );
        let asked = server.requests();
        assert!(
            !asked
                .iter()
                .any(|path| path.ends_with(".md") || path.ends_with(".bin"))
        );

        // Again: only the commit is asked for.
        assert_eq!(hub.resolve("owner/tiny@main", &mut |_| ()).unwrap(), folder);
        assert_eq!(server.requests(), ["/api/models/owner/tiny/revision/main"]);

        // Without the server: what was fetched last.
        let nobody = "http://127.0.0.1:1".to_string();
        let offline = ModelHub {
            endpoint: Some(nobody),
            cache: hub.cache.clone(),
            ..ModelHub::default()
        };
        assert_eq!(offline.resolve("owner/tiny", &mut |_| ()).unwrap(), folder);
        says(
            offline.resolve("owner/other", &mut |_| ()).unwrap_err(),
            &["owner/other"],
        );
    }
}

#[test]
fn the_configuration_alone() {
    let made = tempfile::tempdir().unwrap();
    write_model(made.path(), &config_json());
    let server = Server::start(read_all(made.path()));
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let folder = hub.resolve_config("owner/tiny").unwrap();
    let names: Vec<String> = read_all(&folder).into_keys().collect();
    assert_eq!(names, ["config.json"]);
    // The rest is fetched when it is needed, and is then also in the folder of the configuration.
    assert_eq!(hub.resolve("owner/tiny", &mut |_| ()).unwrap(), folder);
    ModelFolder::open(&folder).unwrap();
    assert_eq!(hub.resolve_config("owner/tiny").unwrap(), folder);
}

#[test]
fn models_that_are_not_there() {
    let server = Server::start(BTreeMap::from([(
        "config.json".to_string(),
        b"{}".to_vec(),
    )]));
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let error = |model: &str| hub.resolve(model, &mut |_| ()).unwrap_err();
    says(
        error("owner/tiny"),
        &["owner/tiny", "neither model.safetensors nor"],
    );
    says(error("owner/none"), &["owner/none", "404"]);
    says(
        error("./no/folder/here"),
        &["./no/folder/here", "no such folder", "owner/name"],
    );
    let folder = cache.path().to_str().unwrap();
    assert_eq!(hub.resolve(folder, &mut |_| ()).unwrap(), cache.path());
}

/// Every connection breaks off after a few bytes, more often than there are attempts: each piece is
/// kept, and the file becomes whole.
#[test]
fn a_link_that_breaks_off_brings_the_whole_model() {
    let made = tempfile::tempdir().unwrap();
    write_model(made.path(), &config_json());
    let files = read_all(made.path());
    let most = files.values().map(Vec::len).max().unwrap() / 6 + 1;
    let server = Server::start_cutting(files.clone(), most);
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let folder = hub.resolve("owner/tiny", &mut |_| ()).unwrap();
    assert!(server.requests().len() > 10);
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), files[name], "{name}");
    }
}

/// A process that was killed between the last byte and the renaming leaves a complete partial file.
#[test]
fn a_part_that_is_whole_does_not_stand_in_the_way() {
    let made = tempfile::tempdir().unwrap();
    write_model(made.path(), &config_json());
    let files = read_all(made.path());
    let server = Server::start(files.clone());
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--owner--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join("model-safetensors.part");
    fs::write(&part, vec![0; files["model.safetensors"].len()]).unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let folder = hub.resolve("owner/tiny", &mut |_| ()).unwrap();
    let weights = fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(weights, files["model.safetensors"]);
    assert!(!part.exists());
}

#[test]
fn a_gguf_file_of_a_repository_is_fetched_with_its_parts() {
    let files = [
        "config.json",
        "m-Q8_0.gguf",
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
    ];
    let files = files.map(|name| (name.to_string(), name.as_bytes().to_vec()));
    let server = Server::start(files.into_iter().collect());
    let cache = tempfile::tempdir().unwrap();
    let hub = ModelHub {
        endpoint: Some(server.endpoint.clone()),
        cache: Some(cache.path().to_path_buf()),
        ..ModelHub::default()
    };
    let found = hub.resolve("owner/tiny/m-Q8_0.gguf", &mut |_| {}).unwrap();
    assert_eq!(fs::read(&found).unwrap(), b"m-Q8_0.gguf");
    let asked = server.requests();
    let fetched = |name: &str| asked.iter().any(|path| path.ends_with(name));
    assert!(
        fetched("m-Q8_0.gguf") && !fetched("config.json"),
        "{asked:?}"
    );
    let first = hub
        .resolve("owner/tiny/m-00001-of-00002.gguf", &mut |_| {})
        .unwrap();
    assert!(first.with_file_name("m-00002-of-00002.gguf").is_file());
    let error = hub
        .resolve("owner/tiny/m-Q4.gguf", &mut |_| {})
        .unwrap_err();
    says(error, &["no m-Q4.gguf", "m-Q8_0.gguf"]);
    let offline = ModelHub {
        offline: true,
        ..hub
    };
    let again = offline
        .resolve("owner/tiny/m-Q8_0.gguf", &mut |_| {})
        .unwrap();
    assert_eq!(again, found);
}
