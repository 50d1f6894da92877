//! Content-addressed blobs: on disk here, and at the coordinator or another worker.

mod folders;
mod mapped;
mod open;
mod reader;
mod remote;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use concord_proto::Digest;
use tokio::task::JoinSet;

use crate::RuntimeError;
use folders::Folders;

pub(crate) use folders::remove_partial;
pub(crate) use mapped::MappedTensor;
pub(crate) use open::OpenBlob;
pub(crate) use reader::BlobReader;
pub use remote::{fetch_from_coordinator, fetch_from_worker, upload};

/// Uploads under way at a time.
const PUT_AT_ONCE: usize = 16;

/// Bytes of the uploads under way, unless a single blob has more.
const PUT_BYTES: u64 = 64 << 20;

/// Which blobs stay on the disk of a worker or checker, and where it finds others.
#[derive(Clone, Debug)]
pub struct BlobOptions {
    /// The folder of the store of a coordinator on this machine. What is there is read there, and
    /// not fetched and stored a second time. Nothing is written to it.
    pub shared: Option<PathBuf>,
    /// Bytes of fetched blobs that may stay beyond those of the present job.
    pub spare_bytes: u64,
}

impl Default for BlobOptions {
    fn default() -> Self {
        Self {
            shared: None,
            spare_bytes: 4 << 30,
        }
    }
}

/// Blobs of the coordinator, which stay on disk once they are fetched.
#[derive(Clone, Debug)]
pub struct Blobs {
    coordinator: tonic::transport::Channel,
    folders: Arc<Folders>,
    spare_bytes: u64,
}

impl Blobs {
    /// Blobs of the coordinator at the other end of `channel`, stored in `dir`.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where the folder cannot be made, or the shared one does not exist.
    pub fn new(
        channel: tonic::transport::Channel,
        dir: PathBuf,
        options: &BlobOptions,
    ) -> Result<Self, RuntimeError> {
        std::fs::create_dir_all(&dir).map_err(|why| io("make", &dir, why))?;
        if let Some(shared) = options.shared.as_ref().filter(|shared| !shared.is_dir()) {
            let why = "no such folder: --blobs takes the folder `blobs` in the --data-dir of a \
                       coordinator on this machine";
            return Err(io("read", shared, std::io::Error::other(why)));
        }
        Ok(Self {
            coordinator: channel,
            folders: Arc::new(Folders::new(dir, options.shared.clone())),
            spare_bytes: options.spare_bytes,
        })
    }

    /// The blob of an address, which stays on disk.
    ///
    /// # Errors
    /// [`RuntimeError`] where it is unavailable. A damaged copy on disk is fetched anew.
    pub async fn get(&self, digest: Digest) -> Result<Arc<Vec<u8>>, RuntimeError> {
        if let Some(bytes) = self.here(digest).await {
            return Ok(Arc::new(bytes));
        }
        let bytes = fetch_from_coordinator(self.coordinator.clone(), digest).await?;
        self.folders.store(digest, &bytes).await?;
        Ok(Arc::new(bytes))
    }

    /// The blob of an address that is needed once: it is not stored.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_once(&self, digest: Digest) -> Result<Vec<u8>, RuntimeError> {
        match self.here(digest).await {
            Some(bytes) => Ok(bytes),
            None => fetch_from_coordinator(self.coordinator.clone(), digest).await,
        }
    }

    /// A blob that is on this machine, whole.
    async fn here(&self, digest: Digest) -> Option<Vec<u8>> {
        let folders = self.folders.clone();
        let read = move || folders.open(digest)?.into_bytes().ok();
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// Makes sure that the blob of an address is on disk, without holding it in memory. Each
    /// process checks it against the address once.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn fetch(&self, digest: Digest) -> Result<(), RuntimeError> {
        let folders = self.folders.clone();
        let is_here = tokio::task::spawn_blocking(move || folders.verify(digest));
        if is_here.await.map_err(stopped)? {
            return Ok(());
        }
        let bytes = fetch_from_coordinator(self.coordinator.clone(), digest).await?;
        self.folders.store(digest, &bytes).await
    }

    /// A blob that has been fetched, to be read piece by piece.
    ///
    /// # Errors
    /// [`RuntimeError::MissingBlob`] where it is not there any more.
    pub(crate) fn open(&self, digest: Digest) -> Result<BlobReader, RuntimeError> {
        let found = self.folders.open(digest);
        found.ok_or(RuntimeError::MissingBlob(digest))
    }

    /// A tensor that has been fetched, mapped; nothing where the system does not map it.
    pub(crate) fn map(&self, digest: Digest) -> Option<MappedTensor> {
        self.folders.map(digest)
    }

    /// Parts of a blob that has been fetched, each from a place and so many bytes long, and the
    /// length of the whole. The caller has digests of its own for them.
    pub(crate) async fn parts(
        &self,
        digest: Digest,
        parts: Vec<(u64, usize)>,
    ) -> std::io::Result<(u64, Vec<Vec<u8>>)> {
        let folders = self.folders.clone();
        let read = tokio::task::spawn_blocking(move || folders.parts(digest, &parts));
        read.await.map_err(std::io::Error::other)?
    }

    /// Doubts a blob on disk: the next [`Self::fetch`] reads it as a whole, or fetches it again.
    pub(crate) fn doubt(&self, digest: Digest) {
        self.folders.doubt(digest);
    }

    /// Deletes fetched blobs of other jobs that are beyond the bound. `needed` are those of this
    /// one.
    pub(crate) async fn trim(&self, needed: BTreeSet<Digest>) {
        let (folders, bytes) = (self.folders.clone(), self.spare_bytes);
        let trim = move || folders.trim(&needed, bytes);
        match tokio::task::spawn_blocking(trim).await {
            Ok(Ok(())) => {}
            // The job can be computed all the same.
            Ok(Err(why)) => tracing::warn!("blobs of earlier jobs cannot be deleted: {why}"),
            Err(why) => tracing::warn!("blobs of earlier jobs cannot be deleted: {why}"),
        }
    }

    /// The value whose canonical encoding is a blob.
    ///
    /// # Errors
    /// [`RuntimeError`] where it is unavailable or is no such value.
    pub async fn get_value<T>(&self, digest: Digest, what: &'static str) -> Result<T, RuntimeError>
    where
        T: concord_proto::canonical::Canonical,
    {
        let bytes = self.get(digest).await?;
        let bad = |why: String| RuntimeError::BadBlob { digest, what, why };
        concord_proto::canonical::decode(&bytes).map_err(|error| bad(error.to_string()))
    }

    /// Puts blobs into the coordinator's store, several at a time: each waits for the disk there.
    ///
    /// # Errors
    /// [`RuntimeError`] where the coordinator cannot be reached or has no room.
    pub(crate) async fn put_all(&self, blobs: Vec<OpenBlob>) -> Result<(), RuntimeError> {
        let mut blobs = blobs.into_iter().peekable();
        let mut uploads = JoinSet::new();
        let mut under_way = 0;
        loop {
            while uploads.len() < PUT_AT_ONCE
                && let Some(blob) =
                    blobs.next_if(|blob| under_way == 0 || under_way + blob.len() <= PUT_BYTES)
            {
                // To copy a tensor from a GPU waits for the work that the GPU does.
                let encoded = tokio::task::spawn_blocking(move || blob.bytes());
                let bytes = encoded.await.map_err(stopped)??;
                let (store, len) = (self.coordinator.clone(), bytes.len() as u64);
                under_way += len;
                uploads.spawn(async move { upload(store, bytes).await.map(|_| len) });
            }
            match uploads.join_next().await {
                None => return Ok(()),
                Some(Ok(uploaded)) => under_way -= uploaded?,
                Some(Err(error)) => return Err(stopped(error)),
            }
        }
    }
}

fn stopped(error: tokio::task::JoinError) -> RuntimeError {
    RuntimeError::Unreachable {
        endpoint: "the coordinator's store".to_string(),
        why: error.to_string(),
    }
}

fn io(action: &'static str, path: &std::path::Path, why: std::io::Error) -> RuntimeError {
    RuntimeError::Io {
        action,
        path: path.display().to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::Domain;
    use tonic::transport::Endpoint;

    use super::*;

    fn blobs(own: &std::path::Path, shared: PathBuf) -> Result<Blobs, RuntimeError> {
        // Nobody listens there.
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let options = BlobOptions {
            shared: Some(shared),
            spare_bytes: 0,
        };
        Blobs::new(channel, own.to_path_buf(), &options)
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = blobs(folder.path(), folder.path().join("nowhere")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("nowhere") && error.contains("--blobs"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_in_the_store_beside_is_neither_fetched_nor_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (own, shared) = (folder.path().join("own"), folder.path().join("shared"));
        let digest = Digest::of(Domain::Blob, b"bytes");
        let place = shared.join(concord_proto::blob_store::blob_file(&digest));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, b"bytes").unwrap();
        let blobs = blobs(&own, shared).unwrap();
        assert_eq!(*blobs.get(digest).await.unwrap(), b"bytes");
        assert_eq!(blobs.get_once(digest).await.unwrap(), b"bytes");
        blobs.fetch(digest).await.unwrap();
        let parts = blobs.parts(digest, vec![(1, 3), (0, 1)]).await.unwrap();
        assert_eq!(parts, (5, vec![b"yte".to_vec(), b"b".to_vec()]));
        assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);

        // Changed on disk: it is not believed, and nobody else has it.
        std::fs::write(&place, b"other").unwrap();
        assert!(blobs.get(digest).await.is_err());
        blobs.doubt(digest);
        assert!(blobs.fetch(digest).await.is_err());
    }
}
