//! A server with its workers, and requests to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pool::{PROGRAM, Process};

/// Nothing that is waited for takes longer, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// `concord serve`, and workers that joined it.
pub struct Server {
    // In the order in which they are dropped.
    pub workers: Vec<Process>,
    /// Ends with this.
    _serve: Process,
    pub url: String,
    pool: String,
    joined: usize,
    pub dir: tempfile::TempDir,
}

impl Server {
    /// Starts a server of a model without workers of its own.
    pub fn start(model: &Path, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let serve = Process::start(
            Command::new(PROGRAM)
                .args([
                    "--json",
                    "serve",
                    "--workers",
                    "0",
                    "--listen",
                    "127.0.0.1:0",
                ])
                .args([
                    "--pool",
                    "127.0.0.1:0",
                    "--served-model-name",
                    "tiny",
                    "--model",
                ])
                .arg(model)
                .arg("--dir")
                .arg(dir.path().join("serve"))
                .args(options),
        );
        let listening = serve.until(|object| object["event"] == "listening");
        let word = |key: &str| listening[key].as_str().unwrap().to_string();
        Self {
            workers: Vec::new(),
            url: word("url"),
            pool: word("pool"),
            _serve: serve,
            joined: 0,
            dir,
        }
    }

    /// Starts a server whose pipeline has so many stages, and waits until it answers.
    pub fn with_stages(model: &Path, stages: usize, options: &[&str]) -> Self {
        let count = stages.to_string();
        let fixed = ["--stages", &count, "--min-workers", &count];
        let mut server = Self::start(model, &[&fixed[..], options].concat());
        for _ in 0..stages {
            server.join("worker", &["--threads", "1"]);
        }
        server.ready();
        server
    }

    /// Starts a worker or checker; gives its index.
    pub fn join(&mut self, role: &str, options: &[&str]) -> usize {
        let dir = self.dir.path().join(format!("member-{}", self.joined));
        self.joined += 1;
        let member = Process::start(
            Command::new(PROGRAM)
                .args(["--json", role, "--coordinator", &self.pool, "--dir"])
                .arg(dir)
                .args(options),
        );
        member.until(|object| object["event"] == "started");
        self.workers.push(member);
        self.workers.len() - 1
    }

    /// The public key of the `index`-th member that joined.
    pub fn key(&self, index: usize) -> String {
        let path = self.dir.path().join(format!("member-{index}/identity.key"));
        let secret = std::fs::read(&path).unwrap().try_into().unwrap();
        concord_proto::Keypair::from_secret(secret)
            .public()
            .to_string()
    }

    /// Waits until it takes requests.
    pub fn ready(&self) {
        let start = Instant::now();
        while status(&format!("{}/ready", self.url)) != 200 {
            let state = get(&format!("{}/api/pool", self.url));
            assert!(start.elapsed() < PATIENCE, "not ready: {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The answer to a request that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        good(&format!("{}{path}", self.url), body)
    }

    /// The state of the pool.
    pub fn view(&self) -> Value {
        get(&format!("{}/api/pool", self.url))
    }

    /// The keys of those who hold the stages of the first pipeline, in order.
    pub fn holders_by_key(&self) -> Vec<String> {
        let view = self.view();
        let stages = view["pipelines"][0]["stages"].as_array().unwrap();
        let key = |stage: &Value| stage["worker"].as_str().unwrap().to_string();
        stages.iter().map(key).collect()
    }

    /// Which member (by its index) holds each stage of the first pipeline.
    pub fn holders(&self) -> Vec<usize> {
        let keys: Vec<String> = (0..self.joined).map(|index| self.key(index)).collect();
        let index = |key: &String| keys.iter().position(|own| own == key);
        let holders = self.holders_by_key();
        holders.iter().map(|key| index(key).unwrap()).collect()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(PATIENCE)).build().new_agent()
}

/// The status of a page.
pub fn status(url: &str) -> u16 {
    agent()
        .get(url)
        .call()
        .map_or(0, |response| response.status().as_u16())
}

/// The JSON of a page.
pub fn get(url: &str) -> Value {
    agent()
        .get(url)
        .call()
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap()
}

/// Status and JSON of an answer.
pub fn post(url: &str, body: &Value) -> (u16, Value) {
    let mut response = agent().post(url).send_json(body).unwrap();
    (
        response.status().as_u16(),
        response.body_mut().read_json().unwrap(),
    )
}

/// The JSON of an answer, whose status must be 200.
#[track_caller]
pub fn good(url: &str, body: &Value) -> Value {
    let (status, answer) = post(url, body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

/// The chunks of a stream, to its end; each with the time since the request.
pub fn stream(url: &str, body: &Value) -> Vec<(Duration, Value)> {
    use std::io::BufRead;
    let start = Instant::now();
    let response = agent().post(url).send_json(body).unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let reader = response.into_body().into_reader();
    let mut chunks = Vec::new();
    for line in std::io::BufReader::new(reader).lines() {
        let line = line.expect("the stream does not break off");
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        if data == "[DONE]" {
            return chunks;
        }
        chunks.push((start.elapsed(), serde_json::from_str(data).expect(data)));
    }
    panic!("the stream ends without [DONE]")
}

/// The model of the tests and an adapter for it, if the reference data are there.
pub fn tiny() -> Option<(PathBuf, PathBuf)> {
    let shared = crate::pool::shared()?;
    let adapter = shared.join("reference/train-lora/final");
    Some((shared.join("models/tinystories-260k"), adapter))
}

/// Requests of mixed length, sampling and adapter, each a function of its number.
pub fn mixed_request(number: u64, adapters: &[&str]) -> Value {
    let words = [
        "Once upon a time there was",
        "The little dog",
        "Lily and Tom went to the park and",
        "One day a big red ball",
        "She said",
        "The sun",
        "In the garden, under the old tree, there",
    ];
    let pick = |salt: u64, from: u64| (number.wrapping_mul(salt) ^ (number >> 1)) % from;
    let mut prompt = words[pick(7, words.len() as u64) as usize].to_string();
    for _ in 0..pick(13, 12) {
        prompt.push_str(" and the cat saw a bird in the big tree. Then");
    }
    let adapter = pick(5, adapters.len() as u64 + 1) as usize;
    let model = if adapter == 0 {
        "tiny"
    } else {
        adapters[adapter - 1]
    };
    let temperature = [0.0, 0.7, 1.0, 1.3][pick(3, 4) as usize];
    let top_p = [1.0, 0.9][pick(17, 2) as usize];
    let frequency = [0.0, 0.5][pick(19, 2) as usize];
    let presence = [0.0, -0.3][pick(23, 2) as usize];
    json!({
        "model": model, "prompt": prompt, "max_tokens": 8 + pick(11, 56), "seed": number,
        "temperature": temperature, "top_p": top_p, "logprobs": 3,
        "frequency_penalty": frequency, "presence_penalty": presence,
    })
}

/// What must not change: text, tokens, logprobs, finish reason.
pub fn essence(answer: &Value) -> Value {
    let choice = &answer["choices"][0];
    json!([choice["text"], choice["logprobs"], choice["finish_reason"]])
}
