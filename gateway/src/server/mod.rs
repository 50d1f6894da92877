//! The accept loop: how many connections there are, and how long they may take.
//!
//! Only HTTP/1.1. Clients of the API keep a connection for each running request; HTTP/2 would
//! mainly add ways to flood a server.

mod leftover;
mod patience;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::api_error::ApiError;
use crate::code::Code;
use crate::options::Limits;
use crate::phase::{DrainPhase, reached};
use patience::Patient;

pub(crate) use tls::Tls;

/// Most bytes of a request's header.
const HEADER_BYTES_MAX: usize = 32 << 10;

/// Most fields of a request's header.
const HEADERS_MAX: usize = 64;

/// How long the accept loop pauses when the system is out of sockets.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How long connections may take to close once no request is running.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Connections beyond the limit that are refused with a response at a time; others are closed
/// without one.
const REFUSALS_MAX: usize = 256;

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Front {
    pub router: Router,
    pub tls: Option<Arc<Tls>>,
    pub limits: Limits,
}

/// Accepts connections until the gateway is stopped, also while it drains, so that clients are
/// refused with a reason.
pub(crate) async fn run(
    listener: TcpListener,
    front: Front,
    mut phase: watch::Receiver<DrainPhase>,
) {
    let room = Arc::new(Semaphore::new(front.limits.connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let front = Arc::new(front);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reached(&mut phase, DrainPhase::Stopped) => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(EXHAUSTED_PAUSE).await;
            continue;
        };
        if let Ok(permit) = room.clone().try_acquire_owned() {
            let task = connection(stream, front.clone(), phase.clone(), permit);
            tokio::spawn(task);
        } else if let Ok(permit) = refusals.clone().try_acquire_owned() {
            tokio::spawn(refuse(stream, front.tls.is_some(), permit));
        }
    }
    drop(listener);
    let all = u32::try_from(front.limits.connections).unwrap_or(u32::MAX);
    // Connections that are still open are closed by their own tasks.
    let _ = timeout(STOP_MAX, room.acquire_many(all)).await;
}

async fn refuse(mut stream: TcpStream, is_tls: bool, _permit: OwnedSemaphorePermit) {
    if is_tls {
        return;
    }
    let message = "Too many connections. Try again later.";
    let body = ApiError::unavailable(Code::Overloaded, message, 1)
        .body()
        .to_string();
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that does not read the response sees the connection close.
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

async fn connection(
    stream: TcpStream,
    front: Arc<Front>,
    phase: watch::Receiver<DrainPhase>,
    _permit: OwnedSemaphorePermit,
) {
    // Tokens are sent one by one.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match &front.tls {
        None => serve(stream, &front, phase).await,
        Some(tls) => {
            let handshake = timeout(front.limits.header_time, tls.acceptor().accept(stream));
            if let Ok(Ok(stream)) = handshake.await {
                serve(stream, &front, phase).await;
            }
        }
    }
}

async fn serve<S>(stream: S, front: &Front, mut phase: watch::Receiver<DrainPhase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Patient::new(stream, front.limits.write_time);
    let router = front.router.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move {
            let (request, lender) = leftover::lend(request);
            let response = router.oneshot(request.map(Body::new)).await;
            let response = response.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(lender.settle(response).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.limits.header_time)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // Errors are caused by the client, which left, was too slow, or does not speak HTTP.
        _ = connection.as_mut() => return,
        () = reached(&mut phase, DrainPhase::Stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(STOP_MAX, connection).await;
}
