//! The end that accepts, and keeps doing so when the process has no file descriptor left for a
//! while.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::identity;
use crate::crypto::{Keypair, PublicKey};

/// How long to wait after a connection could not be accepted: others have to end first.
const PAUSE: Duration = Duration::from_secs(1);

/// A peer that has not shown its key within this time is hung up on.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Connections whose peers have not shown their keys yet. More wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;

/// Connections at a time. More wait in the system's queue.
const CONNECTIONS_MAX: usize = 4_096;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The key that it has shown.
    pub key: PublicKey,
    /// Where it has connected from.
    pub address: SocketAddr,
}

/// Who has sent a request that came over a link of [`accept`].
///
/// # Panics
/// Where it came in another way: a server that is given links of [`accept`] sees no others.
pub fn peer<T>(request: &tonic::Request<T>) -> Peer {
    let peer = request.extensions().get::<Peer>();
    *peer.expect("every link has a peer")
}

/// The links to a listener, for a gRPC server that shows `key`. Those that fail to show a key are
/// dropped without a word: no stranger may fill the log. Ends once what it gives is dropped.
pub fn accept(
    listener: TcpListener,
    key: &Keypair,
) -> impl Stream<Item = io::Result<PeerLink>> + use<> {
    let (links, accepted) = mpsc::channel(HANDSHAKES_MAX);
    let acceptor = TlsAcceptor::from(Arc::new(identity::server(key)));
    tokio::spawn(accept_all(listener, acceptor, links));
    ReceiverStream::new(accepted)
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    links: mpsc::Sender<io::Result<PeerLink>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permits = async {
            // Neither semaphore is ever closed.
            let connection = connections.clone().acquire_owned().await.ok()?;
            Some((connection, handshakes.clone().acquire_owned().await.ok()?))
        };
        let accepted = async { Some((permits.await?, listener.accept().await)) };
        let ((connection, handshake), accepted) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => return,
            },
            () = links.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, links) = (acceptor.clone(), links.clone());
        tokio::spawn(async move {
            let made = tokio::time::timeout(HANDSHAKE_MAX, shake_hands(&acceptor, stream)).await;
            drop(handshake);
            let (stream, key) = match made {
                Ok(Ok(made)) => made,
                Ok(Err(why)) => return tracing::debug!(%address, %why, "no link"),
                Err(_) => return tracing::debug!(%address, "no link: it says nothing"),
            };
            let link = PeerLink {
                stream,
                peer: Peer { key, address },
                _connection: connection,
            };
            // Where the server has ended, so does the link.
            let _ = links.send(Ok(link)).await;
        });
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, PublicKey)> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let key = identity::key_of(stream.get_ref().1.peer_certificates());
    let key = key.ok_or_else(|| io::Error::other("it shows no key"))?;
    Ok((stream, key))
}

/// A connection whose peer has shown its key.
pub struct PeerLink {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Its place among [`CONNECTIONS_MAX`].
    _connection: OwnedSemaphorePermit,
}

impl Connected for PeerLink {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for PeerLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerLink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
