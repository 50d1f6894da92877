//! A client of a coordinator.

use anyhow::{Context, bail};
use concord_proto::JobId;
use concord_proto::canonical;
use concord_proto::client::{ClientRequest, ClientResponse, JobEvent, WatchRequest};
use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::{Body, ending};
use concord_runtime::RuntimeError;
use tonic::Streaming;
use tonic::transport::Channel;

use super::client_key;

/// A connection to a coordinator.
#[derive(Clone)]
pub struct Client {
    url: String,
    channel: Channel,
    grpc: CoordinatorClient<Channel>,
}

/// The stream of a job's events.
pub struct JobEvents(Streaming<Body>);

impl Client {
    /// Connects to `url`, such as "concord://KEY@10.0.0.1:7700", with the user's key.
    ///
    /// # Errors
    /// Where nobody answers there, or another than the holder of that key.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let key = client_key::key()?;
        let channel = match concord_runtime::connect(url, &key).await {
            Err(error @ (RuntimeError::Address(_) | RuntimeError::OtherKey { .. })) => {
                bail!("--coordinator: {error}")
            }
            connected => connected.with_context(|| {
                format!("no coordinator at {url}: start one with `concord coordinator`")
            })?,
        };
        let grpc = CoordinatorClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            url: url.to_string(),
            channel,
            grpc,
        })
    }

    /// The channel, for blobs.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Where the coordinator is gone or refuses, with its reason.
    pub async fn call(&self, request: &ClientRequest) -> anyhow::Result<ClientResponse> {
        let body = Body {
            bytes: canonical::encode(request),
        };
        let answer = self.grpc.clone().call(body).await;
        let answer = answer.map_err(|status| anyhow::anyhow!(ending(&status)));
        let answer = answer.with_context(|| format!("the coordinator at {}", self.url))?;
        match canonical::decode(&answer.into_inner().bytes)? {
            ClientResponse::Refused(reason) => bail!("the coordinator refuses: {reason}"),
            response => Ok(response),
        }
    }

    /// Watches a job from its event number `from` on.
    ///
    /// # Errors
    /// Where the coordinator is gone or does not know the job.
    pub async fn watch(&self, job: JobId, from: u64) -> anyhow::Result<JobEvents> {
        let body = Body {
            bytes: canonical::encode(&WatchRequest { job, from }),
        };
        let answer = self.grpc.clone().watch(body).await;
        let answer = answer.map_err(|status| anyhow::anyhow!(ending(&status)));
        Ok(JobEvents(
            answer.context("cannot watch the job")?.into_inner(),
        ))
    }
}

impl JobEvents {
    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn next(&mut self) -> anyhow::Result<Option<JobEvent>> {
        match self.0.message().await {
            Ok(Some(body)) => Ok(Some(canonical::decode(&body.bytes)?)),
            Ok(None) => Ok(None),
            Err(status) => bail!("lost the coordinator: {}", ending(&status)),
        }
    }
}
