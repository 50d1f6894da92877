//! Connections that come in, also where the process may open no more files.

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;

/// How long to wait where a connection cannot be taken: others have to end first.
const PAUSE: Duration = Duration::from_secs(1);

/// The connections of a listener. Where one cannot be taken it says why and waits: the system
/// offers the same one again at once, for ever.
pub(super) fn accept(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    incoming.then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::error!(%error, "cannot take a connection");
            tokio::time::sleep(PAUSE).await;
        }
        accepted
    })
}
