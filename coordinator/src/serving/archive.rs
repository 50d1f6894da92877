//! Receipts on their way to the disk, many at a time.

use std::sync::Arc;

use concord_proto::{Signed, WorkerId, canonical};
use tokio::sync::{mpsc, oneshot};

use super::hub::Parts;
use crate::blobs::Blobs;
use crate::core::ServingEvent;
use crate::store::Store;

/// Receipts that may wait for the disk.
const WAITING_MAX: usize = 8_192;

/// Receipts in one transaction.
const BATCH_MAX: usize = 256;

/// What the archive is told.
pub(super) enum Input {
    /// Keep a receipt.
    File(Box<Filed>),
    /// The end, once everything is written.
    Stop(oneshot::Sender<()>),
}

/// A receipt to keep.
pub(super) struct Filed {
    pub(super) name: String,
    pub(super) receipt: Signed,
    /// Who signed its claims, where it is to be audited.
    pub(super) audit: Option<Vec<WorkerId>>,
}

/// Starts the task that writes receipts.
pub(super) fn start(parts: &Parts) -> mpsc::Sender<Input> {
    let (inputs, waiting) = mpsc::channel(WAITING_MAX);
    let archive = Archive {
        store: parts.store.clone(),
        blobs: parts.blobs.clone(),
        events: parts.events.clone(),
    };
    tokio::spawn(archive.run(waiting));
    inputs
}

struct Archive {
    store: Arc<Store>,
    blobs: Arc<Blobs>,
    events: mpsc::Sender<ServingEvent>,
}

impl Archive {
    async fn run(self, mut inputs: mpsc::Receiver<Input>) {
        let mut batch = Vec::new();
        while inputs.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let (mut filed, mut stop) = (Vec::new(), None);
            for input in batch.drain(..) {
                match input {
                    Input::File(one) => filed.push(*one),
                    Input::Stop(done) => stop = Some(done),
                }
            }
            self.file(filed).await;
            if let Some(done) = stop {
                // Whoever waits may open the same store again.
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    async fn file(&self, filed: Vec<Filed>) {
        let rows: Vec<(&str, Vec<u8>)> = filed
            .iter()
            .map(|one| (one.name.as_str(), canonical::encode(&one.receipt)))
            .collect();
        if let Err(error) = self.store.keep_receipts(&rows).await {
            // An answer is worth more than its receipt: serving goes on.
            tracing::error!(%error, count = rows.len(), "receipts are lost");
        }
        for one in filed {
            let Some(signers) = one.audit else {
                continue;
            };
            let receipt = match self.blobs.put(canonical::encode(&one.receipt)).await {
                Ok(receipt) => receipt,
                Err(error) => {
                    tracing::error!(%error, "an answer that was drawn is not audited");
                    continue;
                }
            };
            let audit = ServingEvent::Audit {
                receipt,
                name: one.name,
                signers,
            };
            // A core that is gone audits nothing.
            let _ = self.events.send(audit).await;
        }
    }
}
