//! The HTTP gateway: an OpenAI-compatible API over an [`InferenceEngine`].
//!
//! A request is read strictly and becomes one generation for each choice. The engine's updates
//! become text, log-probabilities, tool calls and chunks. Stages and pages are unknown here.
//!
//! `examples/serve_in_process.rs` has a complete engine; this one refuses everything:
//!
//! ```
//! use std::path::PathBuf;
//!
//! use concord_gateway::{EngineAnswer, InferenceEngine, Refused};
//! use concord_proto::Digest;
//! use concord_proto::serving::{BatchedReceipt, Generation, PoolView};
//! use futures_util::future::{BoxFuture, ready};
//!
//! struct Idle;
//!
//! impl InferenceEngine for Idle {
//!     fn submit(&self, _: Generation) -> Result<EngineAnswer, Refused> {
//!         Err(Refused::NotReady("it waits for workers".to_string()))
//!     }
//!
//!     fn view(&self) -> PoolView {
//!         PoolView::default()
//!     }
//!
//!     fn receipts(&self, _: String) -> BoxFuture<'static, Result<Vec<BatchedReceipt>, String>> {
//!         Box::pin(ready(Ok(Vec::new())))
//!     }
//!
//!     fn add_adapter(&self, _: PathBuf) -> BoxFuture<'static, Result<Digest, String>> {
//!         Box::pin(ready(Err("no adapters".to_string())))
//!     }
//!
//!     fn remove_adapter(&self, _: Digest) -> BoxFuture<'static, Result<(), String>> {
//!         Box::pin(ready(Ok(())))
//!     }
//! }
//!
//! assert!(!Idle.view().ready);
//! ```

mod access_log;
mod adapters;
mod answer;
mod api_error;
mod code;
mod embeddings;

mod engine;
mod error;
mod fields;
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
mod paths;
mod phase;
mod pool;
mod prepare;
mod probes;
mod readers;
pub mod receipt_file;
mod receipts;
mod reference;
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
use phase::DrainPhase;

pub use engine::{EngineAnswer, InferenceEngine, Refused};
pub use error::GatewayError;
pub use keys::new_key;
pub use options::{GatewayOptions, Limits, SamplingDefaults, Served};
pub use phase::UnderWay;
pub use reference::api_reference;
pub use running::RunningGateway;

/// Starts a gateway. Requests are refused as long as `engine` is not ready for them.
///
/// ```no_run
/// # async fn serve(
/// #     served: concord_gateway::Served,
/// #     engine: std::sync::Arc<dyn concord_gateway::InferenceEngine>,
/// # ) -> Result<(), concord_gateway::GatewayError> {
/// use std::time::Duration;
///
/// use concord_gateway::{GatewayOptions, start};
///
/// let gateway = start(served, engine, GatewayOptions::new(([127, 0, 0, 1], 0).into())).await?;
/// println!("http://{}/v1", gateway.addr);
/// let cut = gateway.drain(Duration::from_secs(30)).await;
/// println!("{cut} answers were cut");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`GatewayError`].
pub async fn start(
    served: Served,
    engine: Arc<dyn InferenceEngine>,
    options: GatewayOptions,
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
    let (phase, watched) = watch::channel(DrainPhase::Open);
    let under_way = UnderWay::new();
    let parts = gateway::GatewayParts {
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

/// The usage file, and what keys have already used today. It is locked only if a key has a limit on
/// the tokens of a day, because only then it is written.
fn usage_file(
    options: &GatewayOptions,
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
