//! The HTTP gateway: an OpenAI-compatible API over an [`Engine`].
//!
//! A request is read strictly, becomes one generation a choice, and the updates of the
//! engine become text, logprobs, calls of tools and chunks. Nothing here knows of stages or pages.

mod access_log;
mod adapters;
mod answer;
mod api_error;
mod embeddings;
mod engine;
mod error;
mod following;
mod gateway;
mod generate;
mod guides;
mod hex;
mod ids;
mod ignored;
mod json;
mod keys;
mod metrics;
mod models;
mod options;
mod page;
mod phase;
mod pool;
mod prepare;
mod readers;
pub mod receipt_file;
mod receipts;
mod request;
mod request_body;
mod response;
mod routes;
mod running;
mod server;
mod tending;
mod tokenization;
mod visit;
mod watched_files;

use std::sync::Arc;

use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;

use access_log::AccessLog;
use keys::{KeyLine, TokensByKey, UsageFile};
use phase::Phase;

pub use engine::{Answering, Engine, Refused};
pub use error::GatewayError;
pub use keys::new_key;
pub use options::{Limits, Options, SamplingDefaults, Served};
pub use phase::UnderWay;
pub use running::RunningGateway;

/// Starts to listen. What `engine` cannot do yet is refused until it can.
///
/// # Errors
/// [`GatewayError`].
pub async fn start(
    served: Served,
    engine: Arc<dyn Engine>,
    options: Options,
) -> Result<RunningGateway, GatewayError> {
    let addr = options.listen;
    let lines = options.keys.as_deref().map(keys::read).transpose()?;
    if lines.is_none() && !addr.ip().is_loopback() && !options.open {
        return Err(GatewayError::Open(addr));
    }
    let tls = options.tls.as_ref();
    let tls = tls.map(|(certificates, key)| server::Tls::open(certificates, key));
    let tls = tls.transpose()?.map(Arc::new);
    let access_log = options.access_log.as_deref().map(AccessLog::open);
    let access_log = access_log.transpose()?;
    let cors = match &options.cors {
        None => None,
        Some(origin) => {
            let value = HeaderValue::from_str(origin);
            Some(value.map_err(|_| GatewayError::Origin(origin.clone()))?)
        }
    };
    let (usage, used) = usage_file(&options, lines.as_deref())?;
    let listen = |error| GatewayError::Listen { addr, error };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let limits = options.limits;
    let keys = keys::Keyring::new(lines, &used, options.open, &limits);
    let (phase, watched) = watch::channel(Phase::Open);
    let under_way = UnderWay::new();
    let parts = gateway::Parts {
        keys,
        usage,
        cors,
        access_log,
        phase: watched.clone(),
        under_way: under_way.clone(),
    };
    let gateway = Arc::new(gateway::Gateway::new(served, engine, options, parts));
    let front = server::Front {
        router: routes::router(gateway.clone()),
        tls: tls.clone(),
        limits,
    };
    let tending = tending::Tending { gateway, tls };
    Ok(RunningGateway {
        addr,
        phase,
        under_way,
        server: tokio::spawn(server::run(listener, front, watched.clone())),
        tending: tokio::spawn(tending.run(watched)),
    })
}

/// The file of what keys have used, and what they have used today already. It is locked as soon as
/// a key has a bound on the tokens of a day, for only then it is written.
fn usage_file(
    options: &Options,
    lines: Option<&[KeyLine]>,
) -> Result<(Option<UsageFile>, TokensByKey), GatewayError> {
    let (Some(keys), Some(lines)) = (&options.keys, lines) else {
        return Ok((None, TokensByKey::new()));
    };
    let path = options.usage.clone().unwrap_or_else(|| {
        let mut name = keys.as_os_str().to_os_string();
        name.push(".usage");
        name.into()
    });
    let mut file = UsageFile::at(path);
    if lines.iter().any(|line| line.tokens_per_day.is_some()) {
        file.lock()?;
    }
    let used = file.read(keys::today());
    Ok((Some(file), used))
}
