//! Content-addressed blobs: on disk here, and at the coordinator or another worker.

mod folders;
mod reader;
mod remote;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use concord_kernels::Tensor;
use concord_proto::Digest;
use tokio::task::JoinSet;

use crate::{RuntimeError, tensor_blob};
use folders::Folders;

pub(crate) use folders::remove_partial;
pub(crate) use reader::BlobReader;
pub use remote::{fetch_from_coordinator, fetch_from_worker, upload};

/// Uploads under way at a time.
const PUT_AT_ONCE: usize = 16;

/// Bytes of them, unless one blob has more.
const PUT_BYTES: u64 = 64 << 20;

/// Which blobs a worker or checker keeps on its disk, and where it finds others.
#[derive(Clone, Debug)]
pub struct BlobOptions {
    /// The folder of the store of a coordinator on this machine. What is there is read there, and not
    /// fetched and kept a second time. It is only read.
    pub shared: Option<PathBuf>,
    /// Bytes of fetched blobs that are kept beyond those of the present job.
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

/// Blobs of the coordinator, kept on disk once fetched.
#[derive(Clone, Debug)]
pub struct Blobs {
    coordinator: tonic::transport::Channel,
    folders: Arc<Folders>,
    spare_bytes: u64,
}

impl Blobs {
    /// Blobs of the coordinator at the other end of `channel`, kept in `dir`.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where the folder cannot be made.
    pub fn new(
        channel: tonic::transport::Channel,
        dir: PathBuf,
        options: &BlobOptions,
    ) -> Result<Self, RuntimeError> {
        std::fs::create_dir_all(&dir).map_err(|why| io("make", &dir, why))?;
        Ok(Self {
            coordinator: channel,
            folders: Arc::new(Folders::new(dir, options.shared.clone())),
            spare_bytes: options.spare_bytes,
        })
    }

    /// The blob of an address, which stays on disk.
    ///
    /// # Errors
    /// [`RuntimeError`] where it cannot be had. A copy on disk that is broken is fetched anew.
    pub async fn get(&self, digest: Digest) -> Result<Arc<Vec<u8>>, RuntimeError> {
        if let Some(bytes) = self.here(digest).await {
            return Ok(Arc::new(bytes));
        }
        let bytes = fetch_from_coordinator(self.coordinator.clone(), digest).await?;
        self.folders.keep(digest, &bytes).await?;
        Ok(Arc::new(bytes))
    }

    /// The blob of an address that is needed once: it is not kept.
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

    /// Has the blob of an address on disk: held against the address once by each process, without
    /// being in memory.
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
        self.folders.keep(digest, &bytes).await
    }

    /// A blob that has been fetched, to be read piece by piece.
    ///
    /// # Errors
    /// [`RuntimeError::MissingBlob`] where it is not there any more.
    pub(crate) fn open(&self, digest: Digest) -> Result<BlobReader, RuntimeError> {
        let found = self.folders.open(digest);
        found.ok_or(RuntimeError::MissingBlob(digest))
    }

    /// Parts of a blob that has been fetched, each from a place and so many bytes long, and the length
    /// of the whole. The caller has digests of its own for them.
    pub(crate) async fn parts(
        &self,
        digest: Digest,
        parts: Vec<(u64, usize)>,
    ) -> std::io::Result<(u64, Vec<Vec<u8>>)> {
        let folders = self.folders.clone();
        let read = tokio::task::spawn_blocking(move || folders.parts(digest, &parts));
        read.await.map_err(std::io::Error::other)?
    }

    /// Doubts a blob on disk: the next [`Self::fetch`] reads it as a whole, or has it anew.
    pub(crate) fn doubt(&self, digest: Digest) {
        self.folders.doubt(digest);
    }

    /// Deletes fetched blobs of other jobs that are beyond the bound. `needed` are those of this one.
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
    /// [`RuntimeError`] where it cannot be had or is no such value.
    pub async fn get_value<T>(&self, digest: Digest, what: &'static str) -> Result<T, RuntimeError>
    where
        T: concord_proto::canonical::Canonical,
    {
        let bytes = self.get(digest).await?;
        let bad = |why: String| RuntimeError::BadBlob { digest, what, why };
        concord_proto::canonical::decode(&bytes).map_err(|error| bad(error.to_string()))
    }

    /// Puts tensors into the coordinator's store, several at a time: each waits for the disk there.
    ///
    /// # Errors
    /// [`RuntimeError`] where the coordinator cannot be reached or has no room.
    pub async fn put_all(&self, tensors: Vec<Arc<Tensor>>) -> Result<(), RuntimeError> {
        let mut tensors = tensors.into_iter().peekable();
        let mut uploads = JoinSet::new();
        let mut under_way = 0;
        loop {
            while uploads.len() < PUT_AT_ONCE
                && let Some(tensor) = tensors.next_if(|tensor| {
                    under_way == 0 || under_way + tensor_blob::encoded_len(tensor) <= PUT_BYTES
                })
            {
                // A GPU gives a tensor out when what it works on is done.
                let encoded = tokio::task::spawn_blocking(move || tensor_blob::encode(&tensor));
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
