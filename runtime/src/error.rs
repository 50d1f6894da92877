//! What can go wrong in a worker or checker.

use concord_kernels::KernelError;
use concord_kernels::cuda::CudaError;
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
    /// A pass, or an order about it, that does not fit the stage.
    #[error("the stage cannot go on: {0}")]
    Pass(String),
    /// A stage and its pages take more than the worker may use.
    #[error(
        "stage and pages take {needed} bytes, and this worker may use {limit}: give it more with \
         --memory, or serve with more stages or fewer pages"
    )]
    NoRoom {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        limit: u64,
    },
    /// A tensor of the model is missing or broken.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A result is not finite, or a GPU fails.
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
        let is_of_job = match self {
            // A disk that fails is this machine's.
            Self::Model(ModelError::Io { .. }) => false,
            Self::Kernel(_) | Self::Model(_) | Self::Unsupported(_) => true,
            _ => false,
        };
        is_of_job && self.of_gpu().is_none()
    }

    /// Whether memory does not hold a stage.
    pub(crate) fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. }) || self.out_of_memory().is_some()
    }

    /// What the GPU of this process says, where the fault is its.
    fn of_gpu(&self) -> Option<&CudaError> {
        match self {
            Self::Kernel(KernelError::Cuda(error))
            | Self::Model(ModelError::Kernel(KernelError::Cuda(error))) => Some(error),
            _ => None,
        }
    }

    /// The bytes that were needed and the most that can be held, where a GPU has no memory left:
    /// with less to do it can go on.
    pub(crate) fn out_of_memory(&self) -> Option<(u64, u64)> {
        let Some(CudaError::OutOfMemory { asked, report, .. }) = self.of_gpu() else {
            return None;
        };
        let held = report.in_use();
        let kept = held.saturating_add(report.cached);
        let free = |card: concord_kernels::cuda::DeviceMemory| card.free.saturating_add(kept);
        let limit = report.device.map_or(report.limit, free).min(report.limit);
        Some((held.saturating_add(*asked), limit))
    }

    /// Whether the GPU of this process cannot go on: it is lost, or does what it should not.
    pub(crate) fn gpu_is_gone(&self) -> bool {
        self.of_gpu().is_some() && self.out_of_memory().is_none()
    }
}

#[cfg(test)]
mod tests {
    use concord_kernels::cuda::{MemoryReport, Purpose};

    use super::*;

    /// A job must not be given up because a GPU fails: others can do it.
    #[test]
    fn a_gpu_that_fails_is_no_fault_of_the_job() {
        let report = MemoryReport {
            held: [1 << 19, 0, 0, 0, 0, 0, 1],
            cached: 5,
            peak: 0,
            limit: 1 << 20,
            device: None,
        };
        let full = CudaError::OutOfMemory {
            asked: 2 << 20,
            purpose: Purpose::Weights,
            report: Box::new(report),
        };
        let full = RuntimeError::Model(ModelError::Kernel(full.into()));
        assert!(!full.gpu_is_gone() && !full.is_permanent(), "{full}");
        let needed = (1 << 19) + 1 + (2 << 20);
        assert_eq!(full.out_of_memory(), Some((needed, 1 << 20)));
        let cause = "Xid 79".to_string();
        let lost = RuntimeError::Kernel(CudaError::Lost { cause }.into());
        assert!(lost.gpu_is_gone() && !lost.is_permanent(), "{lost}");
        let bits = KernelError::NotFinite {
            tensor: "loss".to_string(),
            index: 0,
            value: f32::NAN,
        };
        let bits = RuntimeError::Kernel(bits);
        assert!(bits.is_permanent() && !bits.gpu_is_gone(), "{bits}");
    }
}
