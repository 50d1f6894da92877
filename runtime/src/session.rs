//! A session with the coordinator: signed messages both ways until either leaves.

use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::limits::MESSAGE_BYTES_MAX;
use concord_proto::link::{self, LinkError};
use concord_proto::session::{Hello, ToCoordinator, ToWorker};
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::{Envelope, ending};
use concord_proto::{Keypair, PublicKey, Signed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::RuntimeError;

/// Messages that may wait for the network.
const OUTGOING_MAX: usize = 256;

/// A coordinator that does not answer a hello within this is not one, or hangs. It takes a while
/// where it has to find out whether an older session of the same key is alive.
const WELCOME_MAX: Duration = Duration::from_secs(15);

/// An open session.
pub(crate) struct Session {
    key: Keypair,
    outgoing: mpsc::Sender<Envelope>,
    incoming: Streaming<Envelope>,
    coordinator: PublicKey,
    /// How often the coordinator wants a heartbeat.
    pub(crate) heartbeat: Duration,
}

/// A channel to `url`, such as "concord://KEY@10.0.0.1:7700", for the holder of `key`.
///
/// # Errors
/// [`RuntimeError::Address`] where `url` is no address that can be connected to, before a byte is
/// sent; [`RuntimeError::OtherKey`] where somebody else is there; [`RuntimeError::Unreachable`]
/// where nobody answers.
pub async fn connect(url: &str, key: &Keypair) -> Result<Channel, RuntimeError> {
    let address = Address::parse(url)?;
    let endpoint = || address.host_and_port();
    link::connect(&address, key)
        .await
        .map_err(|error| match error {
            LinkError::OtherKey { expected, found } => RuntimeError::OtherKey {
                endpoint: endpoint(),
                expected,
                found,
            },
            LinkError::Unreachable(why) => RuntimeError::Unreachable {
                endpoint: endpoint(),
                why,
            },
        })
}

impl Session {
    /// Says hello and waits to be welcome.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] where the coordinator refuses, which is final. Other errors may
    /// pass.
    pub(crate) async fn open(
        (channel, address): (Channel, &Address),
        key: Keypair,
        hello: Hello,
    ) -> Result<Self, RuntimeError> {
        let said = Self::say_hello((channel, address.key()), key, hello);
        let opened = tokio::time::timeout(WELCOME_MAX, said).await;
        opened.unwrap_or_else(|_| Err(lost(&format!("it says nothing for {WELCOME_MAX:?}"))))
    }

    async fn say_hello(
        (channel, expected): (Channel, Option<PublicKey>),
        key: Keypair,
        hello: Hello,
    ) -> Result<Self, RuntimeError> {
        let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
        let mut client = CoordinatorClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.session(ReceiverStream::new(messages)).await;
        let mut incoming = answer
            .map_err(|status| lost(&ending(&status)))?
            .into_inner();
        let (coordinator, first) = first_message(&mut incoming).await?;
        // Who has connected by the key of an address is not spoken to by another one.
        if expected.is_some_and(|expected| expected != coordinator) {
            return Err(lost(
                "its messages are signed by another key than its address names",
            ));
        }
        let ToWorker::Challenge { nonce } = first else {
            return Err(lost("its first message is no challenge"));
        };
        let hello = ToCoordinator::Hello(Hello {
            challenge: nonce,
            ..hello
        });
        let signed = Envelope::from(Signed::new(&key, &hello));
        outgoing.try_send(signed).expect("a new channel has room");
        let (signer, second) = first_message(&mut incoming).await?;
        match second {
            ToWorker::Welcome {
                coordinator: named,
                heartbeat_ms,
            } if named == signer && signer == coordinator => {
                let heartbeat = Duration::from_millis(u64::from(heartbeat_ms.max(50)));
                Ok(Self {
                    key,
                    outgoing,
                    incoming,
                    coordinator,
                    heartbeat,
                })
            }
            ToWorker::Refused { reason } => Err(RuntimeError::Refused(reason)),
            _ => Err(lost("it does not answer the hello")),
        }
    }

    /// The coordinator's key.
    pub(crate) fn coordinator(&self) -> PublicKey {
        self.coordinator
    }

    /// The next message, or nothing once the session is over.
    pub(crate) async fn receive(&mut self) -> Option<ToWorker> {
        let envelope = match self.incoming.message().await {
            Ok(envelope) => envelope?,
            Err(status) => {
                tracing::debug!("the session broke: {}", status.message());
                return None;
            }
        };
        let message = Signed::try_from(envelope).and_then(|signed| {
            let is_theirs = signed.signer == self.coordinator;
            let message = signed.open::<ToWorker>().map_err(|error| error.to_string());
            if is_theirs {
                message
            } else {
                Err("not signed by the coordinator".to_string())
            }
        });
        match message {
            Ok(message) => Some(message),
            Err(why) => {
                tracing::warn!("the coordinator sent what cannot be read: {why}");
                None
            }
        }
    }

    /// Sends a message. False once the session is over.
    pub(crate) async fn send(&self, message: &ToCoordinator) -> bool {
        self.send_signed(Signed::new(&self.key, message)).await
    }

    /// Sends what is signed already.
    pub(crate) async fn send_signed(&self, signed: Signed) -> bool {
        self.outgoing.send(Envelope::from(signed)).await.is_ok()
    }
}

/// A message of a session that is not open yet, and who signed it.
async fn first_message(
    incoming: &mut Streaming<Envelope>,
) -> Result<(PublicKey, ToWorker), RuntimeError> {
    let message = incoming
        .message()
        .await
        .map_err(|status| lost(&ending(&status)))?;
    let envelope = message.ok_or_else(|| lost("it hung up"))?;
    let signed = Signed::try_from(envelope).map_err(|why| lost(&why))?;
    let message = signed.open().map_err(|error| lost(&error.to_string()))?;
    Ok((signed.signer, message))
}

fn lost(why: &str) -> RuntimeError {
    RuntimeError::Unreachable {
        endpoint: "the coordinator".to_string(),
        why: why.to_string(),
    }
}
