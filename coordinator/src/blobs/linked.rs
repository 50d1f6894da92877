//! Blobs whose bytes lie in other files of this machine.

use std::io::Read;
use std::path::PathBuf;

use concord_proto::Digest;
use concord_proto::blob_store::{BlobLink, link_file};
use concord_proto::canonical;
use concord_proto::limits::CHUNK_BYTES;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{BlobError, BlobStore, Pieces, Result};

/// Pieces that are read ahead of the reader.
const AHEAD: usize = 2;

impl BlobStore {
    /// Adds a blob without copying it: the store reads it where it lies, and compares it with its
    /// address whenever it is read. Once the file is changed or gone, the store lacks the blob.
    ///
    /// # Errors
    /// [`BlobError`] of the store.
    pub async fn link(&self, address: &Digest, link: &BlobLink) -> Result<()> {
        if self.has(address).await? {
            return Ok(());
        }
        let incoming = self.incoming();
        let bytes = PutPayload::from(canonical::encode(link));
        let put = self.store.put(&incoming, bytes).await;
        put.map_err(|why| self.failed(why))?;
        let place = object_store::path::Path::from(link_file(address));
        let placed = self.store.rename(&incoming, &place).await;
        placed.map_err(|why| self.failed(why))
    }

    /// The link of a blob, where there is one that holds.
    pub(super) async fn linked(&self, address: &Digest) -> Option<BlobLink> {
        let (folder, address) = (self.folder.clone(), *address);
        let find = move || BlobLink::find(&folder, &address);
        tokio::task::spawn_blocking(find).await.ok().flatten()
    }
}

/// The pieces of a linked blob.
pub(super) fn pieces(link: BlobLink) -> Pieces {
    let (pieces, waiting) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(why) = read(&link, &pieces) {
            let path = PathBuf::from(&link.path);
            // The reader may have gone.
            let _ = pieces.blocking_send(Err(BlobError::Linked { path, why }));
        }
    });
    Box::pin(ReceiverStream::new(waiting))
}

fn read(link: &BlobLink, pieces: &mpsc::Sender<Result<Vec<u8>>>) -> std::io::Result<()> {
    let mut bytes = link.open()?;
    loop {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        (&mut bytes)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut piece)?;
        if piece.is_empty() || pieces.blocking_send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}
