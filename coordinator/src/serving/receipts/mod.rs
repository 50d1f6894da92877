//! Receipts of answers: claims are checked as they come, what the answer was is signed, and what is
//! signed is written.

mod archive;
mod receipt_signer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use concord_proto::Keypair;
use concord_proto::serving::ServedModel;
use tokio::sync::{mpsc, oneshot};

use super::router::Router;
use crate::blobs::BlobStore;
use crate::core::ServingEvent;
use crate::store::Store;
use archive::Archive;
use receipt_signer::ReceiptSigner;

pub(super) use receipt_signer::{ClaimedAnswer, HeldStage, SentText, SignerRequest};

/// Requests that may wait for the signer: the answers of some seconds.
const REQUESTS_MAX: usize = 4_096;

/// How long receipts may take to be written at a shutdown.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What receipts are signed with.
pub(super) struct ReceiptSecrets {
    pub(super) key: Keypair,
    /// The nonce by which answers to audit are drawn.
    pub(super) nonce: [u8; 32],
}

/// Counts receipts that could not be written.
#[derive(Clone, Default)]
struct LostReceipts(Arc<AtomicU64>);

impl LostReceipts {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts more of them; gives how many are lost since the start.
    fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Ordering::Relaxed) + more
    }
}

/// The tasks that sign receipts and write them.
pub(super) struct Receipts {
    pub(super) signer: mpsc::Sender<SignerRequest>,
    lost: LostReceipts,
}

impl Receipts {
    pub(super) fn start(
        served: &ServedModel,
        secrets: ReceiptSecrets,
        store: Arc<Store>,
        blobs: Arc<BlobStore>,
        events: mpsc::Sender<ServingEvent>,
        router: Arc<Router>,
    ) -> Self {
        let lost = LostReceipts::default();
        let archive = Archive::start(store, blobs, events.clone(), lost.clone());
        let signer = ReceiptSigner::new(served, secrets, router, events, archive, lost.clone());
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(signer.run(waiting));
        Self {
            signer: requests,
            lost,
        }
    }

    /// Receipts that could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.count()
    }

    /// Ends the tasks, once what is signed is written.
    pub(super) async fn stop(&self) {
        let (done, written) = oneshot::channel();
        let _ = self.signer.send(SignerRequest::Stop(done)).await;
        if tokio::time::timeout(STOP_MAX, written).await.is_err() {
            tracing::error!("receipts of the last seconds could not be written in time");
        }
    }
}
