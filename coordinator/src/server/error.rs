//! Why a coordinator cannot run, and what would help.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::blobs::BlobError;
use crate::store::StoreError;

/// Why a coordinator cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another process has the port.
    #[error("{0} is in use by another process: choose another port with --listen")]
    PortInUse(SocketAddr),
    /// The system refuses to listen there.
    #[error("cannot listen on {listen}: {why}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The error of the system.
        why: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(String),
    /// A training job is not over, and a model is to be served.
    #[error(
        "{} has a training job that is not over: a coordinator either trains or serves; finish or \
         cancel the job, or serve from another folder", .0.display()
    )]
    Trains(PathBuf),
    /// The gRPC server ended.
    #[error("the server ended: {0}")]
    Serve(String),
    /// A bug.
    #[error("the coordinator has a bug, please report it: {0}")]
    Panicked(String),
}

impl ServerError {
    pub(super) fn listen(listen: SocketAddr, why: std::io::Error) -> Self {
        if why.kind() == std::io::ErrorKind::AddrInUse {
            Self::PortInUse(listen)
        } else {
            Self::Listen { listen, why }
        }
    }
}
