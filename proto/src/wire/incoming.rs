//! Accepts connections, and keeps doing so when the process has no file descriptor left for a
//! while.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;

/// How long to wait after a connection could not be accepted: others have to end first.
const PAUSE: Duration = Duration::from_secs(1);

/// The connections of a listener, for a gRPC server. Where one cannot be accepted, the reason is
/// logged and there is a pause, because the system offers the same connection again at once.
pub fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    incoming.then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::error!(%error, "cannot take a connection");
            tokio::time::sleep(PAUSE).await;
        }
        accepted
    })
}
