//! Leaves that a coordinator re-runs itself, where a checker contradicts a worker.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use concord_kernels::Device;
use concord_proto::ledger::Finding;
use concord_proto::session::AuditOrder;
use concord_proto::{Digest, Keypair, WorkerId};

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

/// What came of a re-run.
#[derive(Clone, Debug)]
pub struct LeafRefereed {
    /// What was found.
    pub finding: Finding,
    /// The addresses of what the leaf was computed from; see
    /// [`concord_proto::Conviction::FalseVerdict`].
    pub inputs: Vec<Vec<Digest>>,
    /// What only who has computed the leaf knows, under the key that was asked for.
    pub trace: Digest,
    /// Whether there is the memory for the leaf.
    pub has_room: bool,
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

    /// Computes a leaf again, of a job whose blobs the coordinator at this address has; connects
    /// with `key`. The finding is [`Finding::Inconclusive`] where it cannot be computed. The trace
    /// is under the key `traced`.
    pub async fn rerun(
        &self,
        coordinator: &str,
        key: &Keypair,
        order: AuditOrder,
        traced: &WorkerId,
    ) -> LeafRefereed {
        match self.recomputer(coordinator, key).await {
            Ok(recomputer) => {
                let found = Arc::new(recomputer).recompute(order, traced).await;
                LeafRefereed {
                    finding: found.finding,
                    inputs: found.inputs,
                    trace: found.trace,
                    has_room: found.has_room,
                }
            }
            Err(error) => {
                let reason = error.to_string();
                LeafRefereed {
                    finding: Finding::Inconclusive { reason },
                    inputs: Vec::new(),
                    trace: Digest::default(),
                    has_room: true,
                }
            }
        }
    }

    async fn recomputer(
        &self,
        coordinator: &str,
        key: &Keypair,
    ) -> Result<Recomputer, RuntimeError> {
        let RefereeOptions {
            device,
            memory_bytes,
            dir,
            store,
        } = self.options.clone();
        let channel = session::connect(coordinator, key).await?;
        let blobs = BlobOptions {
            shared: Some(store),
            spare_bytes: 0,
        };
        let blobs = Blobs::new(channel, dir, &blobs)?;
        let queue = self.queue.clone();
        let parts = (device, blobs, key.clone());
        Ok(Recomputer::new(parts, queue, memory_bytes))
    }
}
