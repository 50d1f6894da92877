//! Receipts on their way to the disk, many at a time.

use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::BatchedReceipt;
use concord_proto::{WorkerId, canonical};
use tokio::sync::{mpsc, oneshot};

use super::LostReceipts;
use crate::blobs::BlobStore;
use crate::core::ServingEvent;
use crate::store::{Store, StoreError};

/// Batches that may wait for the disk: while there is one, the signer gathers the next.
const WAITING_MAX: usize = 1;

/// How often receipts that the disk refuses are tried again.
const TRIES_MAX: u32 = 30;

/// Between two tries. Meanwhile others wait with the signer.
const PAUSE: Duration = Duration::from_secs(1);

/// What the archive is asked for.
pub(super) enum ArchiveRequest {
    /// Write receipts that were signed together, in one transaction.
    File(Vec<FiledReceipt>),
    /// The end, once everything is written.
    Stop(oneshot::Sender<()>),
}

/// A receipt to write.
pub(super) struct FiledReceipt {
    pub(super) name: String,
    pub(super) receipt: BatchedReceipt,
    /// Who signed its claims, where it is to be audited.
    pub(super) audit: Option<Vec<WorkerId>>,
}

/// The task that writes receipts.
pub(super) struct Archive {
    writer: ReceiptWriter,
    blobs: Arc<BlobStore>,
    events: mpsc::Sender<ServingEvent>,
}

impl Archive {
    pub(super) fn start(
        store: Arc<Store>,
        blobs: Arc<BlobStore>,
        events: mpsc::Sender<ServingEvent>,
        lost: LostReceipts,
    ) -> mpsc::Sender<ArchiveRequest> {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let writer = ReceiptWriter {
            store,
            lost,
            pause: PAUSE,
        };
        let archive = Self {
            writer,
            blobs,
            events,
        };
        tokio::spawn(archive.run(waiting));
        requests
    }

    async fn run(self, mut requests: mpsc::Receiver<ArchiveRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                ArchiveRequest::File(batch) => self.file(batch).await,
                ArchiveRequest::Stop(done) => {
                    // The caller that waits may open the same store again.
                    drop(self);
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    async fn file(&self, batch: Vec<FiledReceipt>) {
        let rows: Vec<(&str, Vec<u8>)> = batch
            .iter()
            .map(|one| (one.name.as_str(), canonical::encode(&one.receipt)))
            .collect();
        self.writer.write(&rows).await;
        for one in batch {
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
            // A core that has ended audits nothing.
            let _ = self.events.send(audit).await;
        }
    }
}

/// Writes receipts, and counts those that it could not write.
struct ReceiptWriter {
    store: Arc<Store>,
    lost: LostReceipts,
    pause: Duration,
}

impl ReceiptWriter {
    /// Writes receipts, as soon as the disk takes them. Serving does not wait for it, because an
    /// answer is worth more than its receipt: receipts that wait too long are lost.
    async fn write(&self, rows: &[(&str, Vec<u8>)]) {
        let count = rows.len();
        for tried in 0..=TRIES_MAX {
            let Err(error) = self.store.keep_receipts(rows).await else {
                if tried > 0 {
                    tracing::warn!("{count} receipts are written now, after {tried} failures");
                }
                return;
            };
            let why = words(&error);
            if tried == 0 {
                tracing::warn!("{count} receipts wait, because {why}; writing is tried again");
            }
            if tried == TRIES_MAX {
                let all = self.lost.add(count as u64);
                tracing::error!(
                    "{count} receipts are lost, because {why}; their answers were right, and \
                     cannot be proven any more; {all} are lost since the start"
                );
                return;
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}

/// Why a receipt is not written. The text of an error of the store promises that jobs go on, which
/// does not hold here.
fn words(error: &StoreError) -> String {
    match error {
        StoreError::Full(path) => format!("no room is left on the disk of {}", path.display()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::ConnectOptions;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[test]
    fn a_full_disk_is_told_as_it_is() {
        let told = words(&StoreError::Full("data".into()));
        assert_eq!(told, "no room is left on the disk of data");
    }

    /// Does something to the file of a store behind its back.
    async fn meddle(folder: &Path, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(folder.join("coordinator.db"));
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }

    #[tokio::test]
    async fn receipts_wait_for_the_disk_and_are_counted_where_it_never_comes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).await.unwrap());
        let lost = LostReceipts::default();
        let writer = ReceiptWriter {
            store: store.clone(),
            lost: lost.clone(),
            pause: Duration::from_millis(20),
        };
        let key = concord_proto::Keypair::from_secret([1; 32]);
        let batch = BatchedReceipt::sign(&key, vec![vec![7]]);
        let receipt = canonical::encode(&batch[0]);
        let rows = [("cmpl-a", receipt.clone()), ("cmpl-b", receipt)];
        meddle(folder.path(), "ALTER TABLE receipts RENAME TO away").await;
        writer.write(&rows).await;
        assert_eq!(lost.count(), 2);
        // The disk is there again while they wait.
        let comes_back = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            meddle(folder.path(), "ALTER TABLE away RENAME TO receipts").await;
        };
        tokio::join!(writer.write(&rows), comes_back);
        assert_eq!(lost.count(), 2);
        for (name, _) in &rows {
            assert_eq!(store.receipts(name).await.unwrap().len(), 1, "{name}");
        }
    }
}
