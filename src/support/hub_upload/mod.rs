//! Puts the files of a folder into a repository of the Hugging Face hub, by its HTTP API: create
//! the repository, ask which files are large, send these to the store that is named, commit.

mod lfs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use concord_models::hub::{HubToken, ModelHub};
use serde_json::{Value, json};

/// The server where none is named.
const PUBLIC: &str = "https://huggingface.co";

/// The branch that is committed to.
const BRANCH: &str = "main";

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);

/// Bytes of a file's start, by which the server tells text from binary.
const SAMPLE: usize = 512;

/// Files about which the server is asked at a time.
const ASKED_MAX: usize = 256;

/// Answers of the server that are longer are refused.
const ANSWER_MAX: u64 = 16 << 20;

/// A file that is put into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedFile {
    /// Its path in the repository, with `/`.
    pub path: String,
    /// Where it is on this machine.
    pub local: PathBuf,
    /// Its bytes.
    pub size: u64,
}

/// The hub, for a user who may write to it.
pub struct HubUpload {
    agent: ureq::Agent,
    endpoint: String,
    token: HubToken,
}

type Response = ureq::http::Response<ureq::Body>;

impl HubUpload {
    /// The hub of the environment, with a token of its own where one is given.
    ///
    /// # Errors
    /// Where there is no token, or the hub may not be asked.
    pub fn new(token: Option<&str>) -> anyhow::Result<Self> {
        let hub = ModelHub::from_env().map_err(anyhow::Error::msg)?;
        if hub.offline {
            bail!("HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: unset it to push");
        }
        let given = token.map(|text| HubToken::new("--token", text)).transpose();
        let given = given.map_err(anyhow::Error::msg)?.flatten();
        let endpoint = hub.endpoint.unwrap_or_else(|| PUBLIC.to_string());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        let token = given.or(hub.token).with_context(|| {
            format!(
                "no token: set HF_TOKEN, or give --token, to one that may write \
                 ({endpoint}/settings/tokens)"
            )
        })?;
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .http_status_as_error(false)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            endpoint,
            token,
        })
    }

    /// The page of a repository.
    pub fn page(&self, repo: &str) -> String {
        format!("{}/{repo}", self.endpoint)
    }

    /// Creates a repository. Returns whether it was there already.
    ///
    /// # Errors
    /// What the server answers.
    pub fn create(&self, repo: &str, private: bool) -> anyhow::Result<bool> {
        let (owner, name) = repo.split_once('/').context("a name is owner/name")?;
        let url = format!("{}/api/repos/create", self.endpoint);
        let body = json!({
            "name": name, "organization": owner, "type": "model", "private": private,
        });
        let response = self.authorized(self.agent.post(&url)).send_json(&body);
        let response = response.with_context(|| format!("cannot reach {}", self.endpoint))?;
        if response.status() == 409 {
            return Ok(true);
        }
        // A token may write to this repository and make none.
        if response.status() == 403 {
            let url = format!("{}/api/models/{repo}", self.endpoint);
            let found = self.authorized(self.agent.get(&url)).call();
            if found.is_ok_and(|found| found.status() == 200) {
                return Ok(true);
            }
        }
        self.answer(response, "create the repository")?;
        Ok(false)
    }

    /// Puts files into a repository, as one commit. `progress` is told the bytes of each large file
    /// that is sent. Returns the address of the commit.
    ///
    /// # Errors
    /// Where a file cannot be read; what the server answers.
    pub fn push(
        &self,
        repo: &str,
        files: &[PushedFile],
        message: &str,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<String> {
        let mut lines = vec![json!({"key": "header", "value": {
            "summary": message, "description": "",
        }})];
        let mut large = Vec::new();
        for some in files.chunks(ASKED_MAX) {
            for (file, is_large) in some.iter().zip(self.are_large(repo, some)?) {
                match is_large {
                    true => large.push(file),
                    false => lines.push(json!({"key": "file", "value": {
                        "path": file.path, "encoding": "base64", "content": encoded(&read(file)?),
                    }})),
                }
            }
        }
        for file in large {
            let oid = self.send_large(repo, file, progress)?;
            lines.push(json!({"key": "lfsFile", "value": {
                "path": file.path, "algo": "sha256", "oid": oid, "size": file.size,
            }}));
        }
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let url = format!("{}/api/models/{repo}/commit/{BRANCH}", self.endpoint);
        let request = self.authorized(self.agent.post(&url));
        let request = request.header("Content-Type", "application/x-ndjson");
        let response = request.send(lines.join("\n")).context("the commit")?;
        let answer = self.answer(response, "commit")?;
        let address = answer["commitUrl"].as_str().map(str::to_string);
        Ok(address.unwrap_or_else(|| self.page(repo)))
    }

    /// Whether each file is to be sent apart from the commit.
    fn are_large(&self, repo: &str, files: &[PushedFile]) -> anyhow::Result<Vec<bool>> {
        let asked = files.iter().map(|file| {
            let start = start(file)?;
            Ok(json!({"path": file.path, "size": file.size, "sample": encoded(&start)}))
        });
        let asked = asked.collect::<anyhow::Result<Vec<Value>>>()?;
        let url = format!("{}/api/models/{repo}/preupload/{BRANCH}", self.endpoint);
        let request = self.authorized(self.agent.post(&url));
        let response = request.send_json(json!({ "files": asked }));
        let answer = self.answer(response.context("preupload")?, "take the files")?;
        let said = answer["files"].as_array().cloned().unwrap_or_default();
        let mode = |file: &PushedFile| {
            let of_file = said.iter().find(|said| said["path"] == file.path);
            match of_file.and_then(|said| said["uploadMode"].as_str()) {
                Some("lfs") => Ok(true),
                Some("regular") => Ok(false),
                _ => bail!("the hub does not say how it takes {}", file.path),
            }
        };
        files.iter().map(mode).collect()
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        request.header("Authorization", format!("Bearer {}", self.token.secret()))
    }

    /// The object in a response; the server's message where its status is an error.
    fn answer(&self, mut response: Response, what: &str) -> anyhow::Result<Value> {
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_MAX);
        let text = body.read_to_string().unwrap_or_default();
        let object: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(object);
        }
        let said = object["error"].as_str().unwrap_or("no reason is given");
        let remedy = match status.as_u16() {
            401 | 403 => format!(
                ": take a token that may write there ({}/settings/tokens), by HF_TOKEN or --token",
                self.endpoint
            ),
            _ => String::new(),
        };
        bail!("the hub does not {what}: {said} ({status}){remedy}")
    }
}

fn read(file: &PushedFile) -> anyhow::Result<Vec<u8>> {
    let place = file.local.display();
    std::fs::read(&file.local).with_context(|| format!("cannot read {place}"))
}

fn start(file: &PushedFile) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let place = file.local.display();
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&file.local);
    let read = opened.and_then(|opened| opened.take(SAMPLE as u64).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {place}"))?;
    Ok(bytes)
}

fn encoded(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
