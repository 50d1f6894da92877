//! What is served, and how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use concord_proto::Digest;
use concord_proto::limits::STOP_TEXTS_MAX;
use concord_proto::serving::Deployment;
use concord_text::{ChatTemplate, TextTokenizer};

/// The model behind the API.
pub struct Served {
    /// Its name in requests.
    pub name: String,
    /// Everything that an answer depends on, bit for bit.
    pub deployment: Deployment,
    /// Text to tokens and back.
    pub tokenizer: Arc<TextTokenizer>,
    /// How messages become a prompt; without one, [`ChatTemplate::plain`].
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Adapters that are loaded, by their names in requests.
    pub adapters: Vec<(String, Digest)>,
    /// When it was made available, in seconds since 1970.
    pub created: u64,
    /// Sampling parameters of requests that leave them out.
    pub defaults: SamplingDefaults,
}

/// What a model folder's `generation_config.json` says about sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 takes the most probable token.
    pub temperature: f32,
    /// In (0, 1].
    pub top_p: f32,
    /// 0 keeps all.
    pub top_k: u32,
}

impl Default for SamplingDefaults {
    /// The defaults of OpenAI.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
        }
    }
}

/// How the gateway runs.
///
/// ```
/// use concord_gateway::{GatewayOptions, Limits};
///
/// let options = GatewayOptions {
///     keys: Some("keys".into()),
///     limits: Limits { requests_per_minute: 60, ..Limits::default() },
///     ..GatewayOptions::new(([127, 0, 0, 1], 8000).into())
/// };
/// assert!(!options.open && options.tls.is_none());
/// ```
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// PEM files of the certificate chain and of its private key; without them, plain HTTP. They
    /// are read again when they change.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of API keys ([`crate::new_key`]); without it, no key is needed. It is read again
    /// when it changes.
    pub keys: Option<PathBuf>,
    /// The usage file: what keys have used today. By default it is beside the key file, with
    /// `.usage` appended to its name. It is written only if a key has a limit on the tokens of a
    /// day, and by one gateway at a time.
    pub usage: Option<PathBuf>,
    /// The access log, with a line for each request; `-` is stderr.
    pub access_log: Option<PathBuf>,
    /// Whether to listen beyond this machine although no key is needed.
    pub open: bool,
    /// The folder from which adapters may be loaded at run time; without it, none can be.
    pub adapter_dir: Option<PathBuf>,
    /// The web origin whose pages may call the API, or `*`.
    pub cors: Option<String>,
    /// Whether the name of a control token within a message becomes the token. By default it is
    /// text, so that no user and no tool can end a turn or begin one.
    pub allow_control_tokens: bool,
    /// Bounds.
    pub limits: Limits,
}

impl GatewayOptions {
    /// Plain HTTP without keys, for this machine alone.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            keys: None,
            usage: None,
            access_log: None,
            open: false,
            adapter_dir: None,
            cors: None,
            allow_control_tokens: false,
            limits: Limits::default(),
        }
    }
}

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read; one key may have half of that.
    pub bodies_bytes: usize,
    /// Connections at a time; further ones are asked to come back later.
    pub connections: usize,
    /// How long a request's header or a TLS handshake may take. An idle connection is closed after
    /// this time, too.
    pub header_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// How long a client may read nothing of what is sent to it.
    pub write_time: Duration,
    /// The interval of keep-alive comments in a stream.
    pub keep_alive: Duration,
    /// Requests of a key in a minute, unless its line has a number; 0 means no limit.
    pub requests_per_minute: u32,
    /// Requests of a key at a time, unless its line has a number; 0 means no limit.
    pub concurrent: u32,
    /// Choices of a prompt (`n`).
    pub choices: u32,
    /// Prompts of a request times `n`.
    pub generations: u32,
    /// Stop texts.
    pub stops: usize,
    /// How deep JSON may nest.
    pub json_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            bodies_bytes: 256 << 20,
            connections: 4_096,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            requests_per_minute: 0,
            concurrent: 1_024,
            choices: 16,
            generations: 128,
            stops: STOP_TEXTS_MAX,
            json_depth: 64,
        }
    }
}
