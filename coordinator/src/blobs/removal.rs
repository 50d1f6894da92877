//! Deletes blobs that nothing names, and spares those that a client is about to name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use concord_proto::Digest;
use concord_proto::blob_store::{blob_file, link_file};

use super::{BlobError, BlobStore, Result};

/// How long a blob that nothing names is kept after it was written or asked about: a client uploads
/// the parts of a job first, and names them only at the end.
pub const SPARED: Duration = Duration::from_secs(3_600);

/// Blobs in the store that clients have asked about, and when.
#[derive(Default)]
pub(super) struct Claims(Mutex<BTreeMap<Digest, Instant>>);

impl Claims {
    fn add(&self, blobs: &[Digest]) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|_, asked| asked.elapsed() < SPARED);
        let now = Instant::now();
        claims.extend(blobs.iter().map(|blob| (*blob, now)));
    }

    fn remove(&self, blobs: &[Digest]) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            claims.remove(blob);
        }
    }

    fn has(&self, blob: &Digest) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims
            .get(blob)
            .is_some_and(|asked| asked.elapsed() < SPARED)
    }
}

impl BlobStore {
    /// A client is about to name these blobs: they are spared for a while.
    pub fn claim(&self, blobs: &[Digest]) {
        self.claims.add(blobs);
    }

    /// Forgets claims on blobs that are not in the store, so that asking about blobs that do not
    /// exist cannot fill the memory. Those that are uploaded later are spared by their age.
    pub fn disclaim(&self, missing: &[Digest]) {
        self.claims.remove(missing);
    }

    /// Deletes a blob that nothing names any more, unless a client is about to name it. Gives
    /// whether it was deleted.
    ///
    /// # Errors
    /// [`BlobError`] of the store.
    pub fn remove(&self, address: &Digest) -> Result<bool> {
        if self.claims.has(address) {
            return Ok(false);
        }
        let place = remove_file(&self.folder.join(blob_file(address)))?;
        let link = remove_file(&self.folder.join(link_file(address)))?;
        Ok(place || link)
    }

    /// As [`Self::remove`], if the blob was written at least `age` ago.
    ///
    /// # Errors
    /// [`BlobError`] of the store.
    pub fn remove_aged(&self, address: &Digest, age: Duration) -> Result<bool> {
        let files = [blob_file(address), link_file(address)];
        let is_young = |file: &String| {
            let path = self.folder.join(file);
            path.exists() && !is_aged(&path, age)
        };
        if files.iter().any(is_young) {
            return Ok(false);
        }
        self.remove(address)
    }

    /// The blobs that were written at least `age` ago. Looks at every file of the store; a folder
    /// that cannot be read is skipped, with a warning in the log.
    ///
    /// # Errors
    /// [`BlobError`], if the folder of the store itself cannot be read.
    pub fn aged(&self, age: Duration) -> Result<Vec<Digest>> {
        let mut aged = Vec::new();
        for folder in entries(&self.folder)? {
            if !folder.is_dir() || folder.ends_with("incoming") {
                continue;
            }
            let files = entries(&folder).unwrap_or_else(|error| {
                tracing::warn!(%error, "old blobs of a folder are not deleted");
                Vec::new()
            });
            for file in files {
                let name = file.file_name().and_then(|name| name.to_str());
                let address = name.and_then(|name| name.parse::<Digest>().ok());
                aged.extend(address.filter(|_| is_aged(&file, age)));
            }
        }
        Ok(aged)
    }
}

/// Whether a file was written at least `age` ago; false if the system does not tell.
fn is_aged(path: &Path, age: Duration) -> bool {
    let written = path.metadata().and_then(|found| found.modified());
    let since = written.map(|written| SystemTime::now().duration_since(written));
    matches!(since, Ok(Ok(since)) if since >= age)
}

fn remove_file(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(BlobError::folder(path, why)),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |why| BlobError::folder(folder, why);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}
