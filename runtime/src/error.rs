//! What can go wrong in a worker or checker.

use concord_kernels::KernelError;
use concord_kernels::cuda::CudaError;
use concord_models::ModelError;
use concord_proto::address::AddressError;
use concord_proto::{Digest, PublicKey};

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
    /// Somebody else than was asked for answers at an address.
    #[error(
        "{endpoint} is not who is asked for: its key is {found}, and the address names {expected}. \
         Nothing was sent to it"
    )]
    OtherKey {
        /// Host and port.
        endpoint: String,
        /// The key of the address.
        expected: PublicKey,
        /// The key that was shown.
        found: PublicKey,
    },
    /// A coordinator asks for a signature under a history that does not go on from what it has
    /// shown before.
    #[error(
        "the coordinator tells another history of the job than before: {0}. Nothing is signed for \
         it. (A worker forgets what it was shown when it is started again; an auditor does not)"
    )]
    OtherHistory(String),
    /// The other side could not be reached or hung up.
    #[error("cannot reach {endpoint}: {why}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// A text that should be an address is none that can be connected to.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A worker listens at all addresses of its machine and does not say which one others reach.
    #[error(
        "nobody can connect to {0}, which stands for all addresses of this machine: say with \
         --advertise which one others reach, such as --advertise concord://10.0.0.7:{port}",
        port = shown_port(.0)
    )]
    NotAdvertised(std::net::SocketAddr),
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
    /// A leaf takes more memory than there is for re-runs.
    #[error(
        "a re-run of the leaf is counted to take {needed} bytes, and may use {limit}: give the \
         coordinator more with --referee-memory"
    )]
    NoRoomForLeaf {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that there are.
        limit: u64,
    },
    /// A tensor of the model is missing or broken.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step gives numbers that are not finite: on every machine, because all give the same bits.
    #[error(
        "step {step}: {why}. The training diverges: lower learning_rate, or look at the data of \
         this step"
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// Where it was noticed.
        why: KernelError,
    },
    /// The scalars of a step are not what this worker reported: it signs nothing that rests on
    /// them.
    #[error(
        "the coordinator sent scalars that are not those of this worker: {0}. It has altered them, \
         or is broken: nothing is signed"
    )]
    AlteredScalars(String),
    /// A blob lies in the store with other bytes than were put there.
    #[error("blob {digest} is damaged where it is kept: {why}")]
    Damaged {
        /// Its address.
        digest: Digest,
        /// What the store says.
        why: String,
    },
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

    /// Whether the coordinator takes this process never: no further try would help.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Address(_) | Self::OtherKey { .. }
        )
    }

    /// Whether another worker would fail in the same way: the fault is the job's.
    pub fn is_permanent(&self) -> bool {
        let is_of_job = match self {
            // A disk that fails is this machine's.
            Self::Model(ModelError::Io { .. }) => false,
            Self::Kernel(_) | Self::Model(_) | Self::Unsupported(_) | Self::Diverged { .. } => true,
            _ => false,
        };
        is_of_job && self.of_gpu().is_none()
    }

    /// Whether all workers of a job would fail in the same way: also where a blob that its spec
    /// names is not what it should be, because all fetch the same one.
    pub(crate) fn is_of_job(&self) -> bool {
        let is_of_blob = matches!(
            self,
            Self::MissingBlob(_) | Self::BadBlob { .. } | Self::Damaged { .. }
        );
        is_of_blob || self.is_permanent()
    }

    /// The error of a step: if numbers are not finite, the training diverges.
    pub(crate) fn in_step(self, step: u32) -> Self {
        match self {
            Self::Kernel(why @ KernelError::NotFinite { .. })
            | Self::Model(ModelError::Kernel(why @ KernelError::NotFinite { .. })) => {
                Self::Diverged {
                    step: u64::from(step) + 1,
                    why,
                }
            }
            other => other,
        }
    }

    /// Whether the cause is that memory does not hold a stage.
    pub(crate) fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. }) || self.out_of_memory().is_some()
    }

    /// The error of this process's GPU, if that is the cause.
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

/// The port that the example in the error names.
fn shown_port(listen: &std::net::SocketAddr) -> u16 {
    match listen.port() {
        0 => 7701,
        port => port,
    }
}

#[cfg(test)]
mod tests {
    use concord_kernels::cuda::{MemoryPurpose, MemoryReport};

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
            purpose: MemoryPurpose::Weights,
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

    fn not_finite() -> KernelError {
        KernelError::NotFinite {
            tensor: "loss".to_string(),
            index: 0,
            value: f32::NAN,
        }
    }

    /// All workers give the same bits and fetch the same blobs: what fails in them is the job's.
    /// What fails in one machine or on the way to it is not.
    #[test]
    fn what_every_worker_would_meet_is_the_fault_of_the_job() {
        let digest = Digest::default();
        let io = |kind| RuntimeError::Io {
            action: "write",
            path: "x".to_string(),
            why: std::io::Error::from(kind),
        };
        let text = || "why".to_string();
        for (error, is_of_job) in [
            (RuntimeError::Kernel(not_finite()).in_step(11), true),
            (RuntimeError::Model(not_finite().into()).in_step(11), true),
            (RuntimeError::Kernel(not_finite()), true),
            (RuntimeError::Unsupported(text()), true),
            (RuntimeError::MissingBlob(digest), true),
            (
                RuntimeError::BadBlob {
                    digest,
                    what: "data chunk",
                    why: text(),
                },
                true,
            ),
            (
                RuntimeError::Damaged {
                    digest,
                    why: text(),
                },
                true,
            ),
            (
                RuntimeError::WrongBlob {
                    expected: digest,
                    got: digest,
                },
                false,
            ),
            (
                RuntimeError::Unreachable {
                    endpoint: text(),
                    why: text(),
                },
                false,
            ),
            (io(std::io::ErrorKind::StorageFull), false),
            (RuntimeError::EngineStopped, false),
            (
                RuntimeError::NoRoom {
                    needed: 2,
                    limit: 1,
                },
                false,
            ),
        ] {
            assert_eq!(error.is_of_job(), is_of_job, "{error}");
        }
    }

    #[test]
    fn divergence_says_in_which_step_and_what_would_help() {
        for error in [
            RuntimeError::Kernel(not_finite()),
            RuntimeError::Model(ModelError::Kernel(not_finite())),
        ] {
            let words = error.in_step(11).to_string();
            for part in [
                "step 12: loss",
                "NaN",
                "not a finite number",
                "learning_rate",
            ] {
                assert!(words.contains(part), "{words}");
            }
        }
        let other = RuntimeError::Unsupported("no".to_string());
        assert!(!other.in_step(11).to_string().contains("learning_rate"));
    }
}
