//! One client: it keeps its connection, sends one request after another, and reads each stream to
//! its end.

use std::time::Instant;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The longest accepted event.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// A request, as it is sent.
pub(super) struct LoadRequest {
    pub(super) body: String,
}

/// An answer, with the times of its pieces.
pub(super) struct TimedAnswer {
    pub(super) sent: Instant,
    /// When each piece of text came.
    pub(super) pieces: Vec<Instant>,
    /// Tokens, as the server counts them.
    pub(super) tokens: u64,
}

/// The address of the API.
#[derive(Clone)]
pub(super) struct Endpoint {
    authority: String,
    authorization: Option<String>,
}

pub(super) struct Connection<'a> {
    endpoint: &'a Endpoint,
    sender: SendRequest<Full<Bytes>>,
}

impl Endpoint {
    pub(super) fn new(url: &str, key: Option<&str>) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("--server {url}: an address such as http://127.0.0.1:8000");
        };
        let authority = rest.trim_end_matches('/').trim_end_matches("/v1");
        Ok(Self {
            authority: authority.to_string(),
            authorization: key.map(|key| format!("Bearer {key}")),
        })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection<'_>> {
        let place = || format!("no API at http://{}", self.authority);
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(place)?;
        stream.set_nodelay(true)?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.with_context(place)?;
        // The task ends with the sender, which also reports errors.
        tokio::spawn(connection);
        Ok(Connection {
            endpoint: self,
            sender,
        })
    }
}

impl Connection<'_> {
    /// Sends a request and reads its stream.
    pub(super) async fn ask(&mut self, request: &LoadRequest) -> anyhow::Result<TimedAnswer> {
        // Some servers close the connection after a stream.
        if self.sender.ready().await.is_err() {
            *self = self.endpoint.connect().await?;
        }
        let mut post = hyper::Request::post("/v1/completions")
            .header("Host", &self.endpoint.authority)
            .header("Content-Type", "application/json");
        if let Some(authorization) = &self.endpoint.authorization {
            post = post.header("Authorization", authorization);
        }
        let post = post.body(Full::new(Bytes::from(request.body.clone())))?;
        let again = post.clone();
        let mut answer = TimedAnswer {
            sent: Instant::now(),
            pieces: Vec::new(),
            tokens: 0,
        };
        let response = match self.sender.send_request(post).await {
            Ok(response) => response,
            // The server closed the connection while the request was being sent.
            Err(_) => {
                *self = self.endpoint.connect().await?;
                self.sender.send_request(again).await?
            }
        };
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let text = body.collect().await?.to_bytes();
            bail!(
                "the API answers {status}: {}",
                String::from_utf8_lossy(&text)
            );
        }
        let mut events = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            events.extend_from_slice(&data);
            if events.len() > EVENT_BYTES_MAX {
                bail!("an event of more than {EVENT_BYTES_MAX} bytes");
            }
            while let Some(end) = events.windows(2).position(|pair| pair == b"\n\n") {
                answer.take(&events[..end])?;
                events.drain(..end + 2);
            }
        }
        if answer.tokens == 0 {
            answer.tokens = answer.pieces.len() as u64;
        }
        Ok(answer)
    }
}

impl TimedAnswer {
    fn take(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let Some(data) = event.strip_prefix(b"data: ") else {
            return Ok(());
        };
        if data == b"[DONE]" {
            return Ok(());
        }
        let chunk: Value = serde_json::from_slice(data).context("the API sends no JSON")?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            bail!("the API breaks off: {message}");
        }
        if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
        let text = chunk["choices"][0]["text"].as_str();
        if text.is_some_and(|text| !text.is_empty()) {
            self.pieces.push(Instant::now());
        }
        Ok(())
    }
}
