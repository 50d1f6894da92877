//! Leaves that a coordinator re-runs itself, where a checker contradicts a worker.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use concord_kernels::Device;
use concord_proto::Digest;
use concord_proto::ledger::Finding;
use concord_proto::session::AuditOrder;

use crate::blobs::{BlobOptions, Blobs};
use crate::checker::{AuditQueue, Recomputer};
use crate::{RuntimeError, session};

/// How leaves are re-run.
#[derive(Clone, Debug)]
pub struct RefereeOptions {
    /// Where it computes.
    pub device: Device,
    /// Leaves that are counted to take more bytes are not begun.
    pub memory_bytes: u64,
    /// The folder of blobs that it fetches.
    pub dir: PathBuf,
    /// The folder of the coordinator's store: what is there is read there.
    pub store: PathBuf,
}

/// Re-runs leaves for a coordinator, one at a time. Nothing stays loaded between two.
#[derive(Clone)]
pub struct LeafReferee {
    options: RefereeOptions,
    queue: AuditQueue,
}

impl fmt::Debug for LeafReferee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("LeafReferee");
        text.field("options", &self.options).finish_non_exhaustive()
    }
}

impl LeafReferee {
    /// Nothing is opened or loaded before the first leaf.
    pub fn new(options: RefereeOptions) -> Self {
        Self {
            options,
            queue: AuditQueue::new(0),
        }
    }

    /// Computes a leaf again, of a job whose blobs the coordinator at this address has. Gives what
    /// was found, and the addresses of what it was computed from;
    /// [`Finding::Inconclusive`] where it cannot be computed.
    pub async fn rerun(&self, coordinator: &str, order: AuditOrder) -> (Finding, Vec<Vec<Digest>>) {
        match self.recomputer(coordinator).await {
            Ok(recomputer) => {
                let found = Arc::new(recomputer).recompute(order).await;
                (found.finding, found.inputs)
            }
            Err(error) => {
                let reason = error.to_string();
                (Finding::Inconclusive { reason }, Vec::new())
            }
        }
    }

    async fn recomputer(&self, coordinator: &str) -> Result<Recomputer, RuntimeError> {
        let RefereeOptions {
            device,
            memory_bytes,
            dir,
            store,
        } = self.options.clone();
        let channel = session::connect(coordinator).await?;
        let blobs = BlobOptions {
            shared: Some(store),
            spare_bytes: 0,
        };
        let blobs = Blobs::new(channel, dir, &blobs)?;
        let queue = self.queue.clone();
        Ok(Recomputer::new(device, blobs, queue, memory_bytes))
    }
}
