//! The gRPC stubs of `schema/concord.proto`. Only with the feature `grpc`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub use crate::training::FrameHeader;

tonic::include_proto!("concord.v1");

impl From<crate::Signed> for Envelope {
    fn from(signed: crate::Signed) -> Self {
        Self {
            signer: signed.signer.0.to_vec(),
            body: signed.body,
            signature: signed.signature.to_vec(),
        }
    }
}

impl TryFrom<Envelope> for crate::Signed {
    type Error = String;

    fn try_from(envelope: Envelope) -> Result<Self, String> {
        let signer = envelope
            .signer
            .try_into()
            .map_err(|_| "a signer is not 32 bytes")?;
        let signature = envelope
            .signature
            .try_into()
            .map_err(|_| "a signature is not 64 bytes")?;
        Ok(Self {
            signer: crate::PublicKey(signer),
            body: envelope.body,
            signature,
        })
    }
}

/// Why a call or a stream ended, for people: the message of the peer, or that the connection broke
/// where the peer sent none.
pub fn ending(status: &tonic::Status) -> String {
    // Statuses that came over the wire have no source.
    let mut cause = std::error::Error::source(status);
    if cause.is_none() {
        return status.message().to_string();
    }
    let mut why = None;
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        // Other errors only repeat messages that the transport library writes for programmers.
        why = io.filter(|io| io.raw_os_error().is_some()).or(why);
        cause = error.source();
    }
    match why {
        Some(why) => format!("its connection broke ({why})"),
        None => "its connection broke".to_string(),
    }
}

/// The innermost cause of an error: in errors of connections, the one that names the reason.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// An error as the transport library makes them: a message for programmers around the cause.
    #[derive(Debug)]
    struct Layer(Option<io::Error>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("h2 protocol error: error reading a body from connection")
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.0.as_ref().map(|io| io as _)
        }
    }

    #[test]
    fn the_root_cause_is_the_innermost() {
        let refused = io::Error::from_raw_os_error(111);
        let words = refused.to_string();
        assert_eq!(root_cause(&Layer(Some(refused))), words);
        assert_eq!(root_cause(&Layer(None)), Layer(None).to_string());
    }

    #[test]
    fn a_broken_connection_is_told_in_plain_words() {
        let of = |io| ending(&tonic::Status::from_error(Box::new(Layer(io))));
        assert_eq!(of(None), "its connection broke");
        let vague = io::Error::other("h2 says something");
        assert_eq!(of(Some(vague)), "its connection broke");
        let refused = of(Some(io::Error::from_raw_os_error(111)));
        assert!(refused.starts_with("its connection broke (") && refused.ends_with("111))"));
        assert!(!refused.contains("h2"), "{refused}");
        let said = tonic::Status::not_found("the store has no blob 7");
        assert_eq!(ending(&said), "the store has no blob 7");
    }
}
