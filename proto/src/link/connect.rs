//! The end that connects.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};

use super::identity;
use crate::address::Address;
use crate::crypto::{Keypair, PublicKey};
use crate::wire::root_cause;

/// A machine that takes no connection within this, or takes it and says nothing, is not there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// While something is under way, a keep-alive is sent this often, and the connection is given up if
/// there is no answer for `ALIVE_MAX`: a machine that was switched off closes no connection.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const ALIVE_MAX: Duration = Duration::from_secs(20);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Somebody else is there.
    #[error(
        "the process there has the key {found}, and {expected} is asked for: nothing was sent to it"
    )]
    OtherKey {
        /// The key of the address.
        expected: PublicKey,
        /// The key that was shown.
        found: PublicKey,
    },
    /// Nobody is there, or it does not speak this protocol.
    #[error("{0}")]
    Unreachable(String),
}

/// A channel to whoever holds the key of `address`; `key` is shown to it. After a broken connection
/// the channel connects anew, under the same rule.
///
/// # Errors
/// [`LinkError`], before a byte beyond the handshake is sent.
pub async fn connect(address: &Address, key: &Keypair) -> Result<Channel, LinkError> {
    let connector = Arc::new(Connector {
        tls: Arc::new(identity::client(key)).into(),
        place: address.host_and_port(),
        expected: address.key(),
    });
    // What stands here goes into a header of the requests, which nobody reads.
    let endpoint = Endpoint::from_static("http://concord")
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(ALIVE_EVERY)
        .keep_alive_timeout(ALIVE_MAX)
        .http2_adaptive_window(true);
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move { connector.connect().await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connect).await.map_err(told)
}

/// What became of a connection: the transport wraps the reason into errors of its own.
fn told(error: tonic::transport::Error) -> LinkError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>();
        let other = io.and_then(|io| io.get_ref()?.downcast_ref::<LinkError>());
        if let Some(LinkError::OtherKey { expected, found }) = other {
            let (expected, found) = (*expected, *found);
            return LinkError::OtherKey { expected, found };
        }
        cause = inner.source();
    }
    LinkError::Unreachable(root_cause(&error))
}

struct Connector {
    tls: TlsConnector,
    /// Host and port.
    place: String,
    /// Who has to be there; none where anybody may.
    expected: Option<PublicKey>,
}

impl Connector {
    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.place).await?;
        stream.set_nodelay(true)?;
        // It is neither sent nor compared with anything: keys have no names.
        let name = ServerName::try_from("concord").map_err(io::Error::other)?;
        let stream = self.tls.connect(name, stream).await?;
        let found = identity::key_of(stream.get_ref().1.peer_certificates());
        let found = found.ok_or_else(|| io::Error::other("the process there shows no key"))?;
        match self.expected {
            Some(expected) if expected != found => {
                Err(io::Error::other(LinkError::OtherKey { expected, found }))
            }
            _ => Ok(stream),
        }
    }
}
