//! Errors of starting a gateway.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {error}; choose another address or port")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The address can be reached from other machines, and no key is needed.
    #[error(
        "{0} can be reached from other machines, and no API keys are set: give a file of keys, \
         listen on 127.0.0.1, or say that the API is to be open to anyone"
    )]
    Open(SocketAddr),
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {error}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A line of the file of keys is wrong. The key itself is never shown.
    #[error(
        "{path}, line {line}: {reason}; a line is `name digest [rpm=N] [concurrent=N] \
             [tokens_per_day=N] [admin]`"
    )]
    Keys {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Another server writes the usage file, and each would overwrite the other's counts.
    #[error(
        "{path}, which says what API keys have used today, is written by another server: give \
         each server a folder of its own (`concord serve --dir`), or a file of keys of its own"
    )]
    UsageShared {
        /// The file.
        path: PathBuf,
    },
    /// Certificates and key cannot be used.
    #[error("cannot serve TLS with {certificates} and {key}: {reason}")]
    Tls {
        /// The certificate chain.
        certificates: PathBuf,
        /// The private key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The text cannot be a web origin.
    #[error("'{0}' is no web origin; give one such as https://example.org, or *")]
    Origin(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}
