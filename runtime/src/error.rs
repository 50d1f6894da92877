//! What can go wrong in a worker or checker.

use concord_kernels::KernelError;
use concord_models::ModelError;
use concord_proto::Digest;

/// Cause, place and, where there is one, remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A blob is neither here nor at the other side.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// Bytes came that are not what their address says.
    #[error("blob {expected} came as other bytes, of address {got}")]
    WrongBlob {
        /// The address asked for.
        expected: Digest,
        /// The address of what came.
        got: Digest,
    },
    /// A blob that is not of the kind that is needed.
    #[error("blob {digest} is no {what}: {why}")]
    BadBlob {
        /// Its address.
        digest: Digest,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The other side could not be reached or hung up.
    #[error("cannot reach {endpoint}: {why}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The coordinator does not take this process.
    #[error("the coordinator refuses: {0}")]
    Refused(String),
    /// The thread that computes has stopped.
    #[error("the engine has stopped, which is a bug: its last words are above")]
    EngineStopped,
    /// The file system refused.
    #[error("cannot {action} {path}: {why}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: String,
        /// Why not.
        why: std::io::Error,
    },
    /// Another process has the port.
    #[error("{0} is in use by another process: choose another port with --listen")]
    PortInUse(std::net::SocketAddr),
    /// Another process has the folder, and with it the key.
    #[error(
        "{0} is in use by another worker or checker: stop it, or give this one a folder of its \
         own with --dir"
    )]
    FolderInUse(String),
    /// Nobody answers where the coordinator should be.
    #[error(
        "no coordinator at {endpoint} ({why}): start one with `concord coordinator`, or give the \
         address of one with --coordinator"
    )]
    NoCoordinator {
        /// Where.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The job spec asks for what this build cannot do.
    #[error("the job cannot be computed here: {0}")]
    Unsupported(String),
    /// A tensor of the model is missing or broken.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A result is not finite.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl RuntimeError {
    /// What the user is told where a coordinator was out of reach for too long.
    pub(crate) fn no_coordinator(self, endpoint: &str) -> Self {
        match self {
            Self::Unreachable { why, .. } => Self::NoCoordinator {
                endpoint: endpoint.to_string(),
                why,
            },
            other => other,
        }
    }

    /// Whether another worker would fail in the same way: the fault is the job's.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Kernel(_) | Self::Model(_) | Self::Unsupported(_)
        )
    }
}
