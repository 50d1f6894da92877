//! Content-addressed blobs: on disk here, and at the coordinator or another worker.

mod remote;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use concord_kernels::Tensor;
use concord_proto::{Digest, Domain};
use tokio::task::JoinSet;

use crate::{RuntimeError, tensor_blob};

pub use remote::{fetch_from_coordinator, fetch_from_worker, upload};

/// Uploads under way at a time.
const PUT_AT_ONCE: usize = 16;

/// Blobs of the coordinator, kept on disk once fetched.
#[derive(Clone, Debug)]
pub struct Blobs {
    coordinator: tonic::transport::Channel,
    dir: Arc<PathBuf>,
}

impl Blobs {
    /// Blobs of the coordinator at the other end of `channel`, kept in `dir`.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where the folder cannot be made.
    pub fn new(channel: tonic::transport::Channel, dir: PathBuf) -> Result<Self, RuntimeError> {
        std::fs::create_dir_all(&dir).map_err(|why| io("make", &dir, why))?;
        Ok(Self {
            coordinator: channel,
            dir: Arc::new(dir),
        })
    }

    /// The blob of an address.
    ///
    /// # Errors
    /// [`RuntimeError`] where it cannot be had. A copy on disk that is broken is fetched anew.
    pub async fn get(&self, digest: Digest) -> Result<Arc<Vec<u8>>, RuntimeError> {
        let path = self.dir.join(digest.to_string());
        if let Ok(bytes) = tokio::fs::read(&path).await
            && Digest::of(Domain::Blob, &bytes) == digest
        {
            return Ok(Arc::new(bytes));
        }
        let bytes = fetch_from_coordinator(self.coordinator.clone(), digest).await?;
        self.keep(digest, &bytes).await?;
        Ok(Arc::new(bytes))
    }

    /// Has the blob of an address on disk.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn fetch(&self, digest: Digest) -> Result<(), RuntimeError> {
        self.get(digest).await.map(drop)
    }

    /// The blob of an address that has been fetched.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where it is not there any more, [`RuntimeError::WrongBlob`] where it has
    /// changed.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, RuntimeError> {
        let path = self.dir.join(digest.to_string());
        let bytes = std::fs::read(&path).map_err(|why| io("read", &path, why))?;
        let got = Digest::of(Domain::Blob, &bytes);
        if got == digest {
            return Ok(bytes);
        }
        Err(RuntimeError::WrongBlob {
            expected: digest,
            got,
        })
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
        let mut tensors = tensors.into_iter();
        let mut uploads = JoinSet::new();
        loop {
            while uploads.len() < PUT_AT_ONCE
                && let Some(tensor) = tensors.next()
            {
                // A GPU gives a tensor out when what it works on is done.
                let encoded = tokio::task::spawn_blocking(move || tensor_blob::encode(&tensor));
                let bytes = encoded.await.map_err(stopped)??;
                uploads.spawn(upload(self.coordinator.clone(), bytes));
            }
            match uploads.join_next().await {
                None => return Ok(()),
                Some(Ok(uploaded)) => drop(uploaded?),
                Some(Err(error)) => return Err(stopped(error)),
            }
        }
    }

    /// Each writer has a file of its own until the blob is whole: two tasks may fetch the same one
    /// at a time.
    async fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), RuntimeError> {
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let partial = self
            .dir
            .join(format!("{digest}.{process}-{writer}.partial"));
        let path = self.dir.join(digest.to_string());
        tokio::fs::write(&partial, bytes)
            .await
            .map_err(|e| io("write", &partial, e))?;
        tokio::fs::rename(&partial, &path)
            .await
            .map_err(|e| io("write", &path, e))
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
