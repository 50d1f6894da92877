//! The HTTP gateway: an OpenAI-compatible API over an [`Engine`].
//!
//! A request is read strictly, becomes one generation a choice, and the updates of the
//! engine become text, logprobs, calls of tools and chunks. Nothing here knows of stages or pages.

mod adapters;
mod answer;
mod api_error;
mod embeddings;
mod engine;
mod error;
mod gateway;
mod generate;
mod guides;
mod hex;
mod ids;
mod json;
mod keys;
mod metrics;
mod models;
mod options;
mod page;
mod pool;
mod prepare;
pub mod receipt_file;
mod receipts;
mod request;
mod request_body;
mod response;
mod routes;
mod server;
mod tokenization;

use std::sync::Arc;

use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use engine::{Answering, Engine, Refused};
pub use error::GatewayError;
pub use keys::new_key;
pub use options::{Limits, Options, SamplingDefaults, Served};
pub use server::RunningGateway;

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
    let tls = tls.map(|(certificates, key)| server::acceptor(certificates, key));
    let tls = tls.transpose()?;
    let cors = match &options.cors {
        None => None,
        Some(origin) => {
            let value = HeaderValue::from_str(origin);
            Some(value.map_err(|_| GatewayError::Origin(origin.clone()))?)
        }
    };
    let listen = |error| GatewayError::Listen { addr, error };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    let limits = options.limits;
    let keys = keys::Keyring::new(lines, options.open, &limits);
    let gateway = gateway::Gateway::new(served, engine, keys, options, cors);
    let router = routes::router(Arc::new(gateway));
    let (stop, stopped) = watch::channel(false);
    let front = server::Front {
        router,
        tls,
        limits,
    };
    let task = tokio::spawn(server::run(listener, front, stopped));
    Ok(RunningGateway { addr, stop, task })
}
