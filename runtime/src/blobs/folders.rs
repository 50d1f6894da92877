//! Where blobs lie on this machine: in a folder of this process's own, and in the store of a
//! coordinator beside it, where there is one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use concord_proto::Digest;
use concord_proto::blob_store::{BlobLink, blob_file};

use super::io;
use super::mapped::{MappedTensor, Maps};
use super::reader::{BlobBytes, BlobReader};
use crate::RuntimeError;

/// The extension of a file's name until it is complete.
const PARTIAL: &str = "partial";

/// The folders of this process.
#[derive(Debug)]
pub(super) struct Folders {
    own: PathBuf,
    shared: Option<PathBuf>,
    /// What this process has checked against its address since it began.
    verified: Mutex<BTreeSet<Digest>>,
    /// Blobs whose bytes were wrong when they were last read.
    doubted: Mutex<BTreeSet<Digest>>,
    maps: Maps,
}

impl Folders {
    pub(super) fn new(own: PathBuf, shared: Option<PathBuf>) -> Self {
        Self {
            own,
            shared,
            verified: Mutex::default(),
            doubted: Mutex::default(),
            maps: Maps::default(),
        }
    }

    fn doubted(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verified(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a blob, if it is here. Its bytes have not been checked.
    pub(super) fn open(&self, address: Digest) -> Option<BlobReader> {
        let reader = |bytes, path| Some(BlobReader::new(bytes, path, address));
        if let Some(shared) = &self.shared {
            let path = shared.join(blob_file(&address));
            if let Ok(file) = File::open(&path) {
                return reader(BlobBytes::File(file), path);
            }
            if let Some(link) = BlobLink::find(shared, &address)
                && let Ok(linked) = link.open()
            {
                return reader(BlobBytes::Link(linked), PathBuf::from(link.path));
            }
        }
        let path = self.own.join(address.to_string());
        let file = File::open(&path).ok()?;
        reader(BlobBytes::File(file), path)
    }

    /// Maps a tensor, if it is here. Its bytes have not been looked at.
    pub(super) fn map(&self, address: Digest) -> Option<MappedTensor> {
        if let Some(shared) = &self.shared {
            let path = shared.join(blob_file(&address));
            if path.is_file() {
                return MappedTensor::of_file(&path);
            }
            if let Some(link) = BlobLink::find(shared, &address) {
                let map = self.maps.of(Path::new(&link.path))?;
                return MappedTensor::of_part(&link.prefix, map, link.offset, link.bytes);
            }
        }
        MappedTensor::of_file(&self.own.join(address.to_string()))
    }

    /// Whether a blob is here and whole: read once by each process. What lies in a model's own
    /// files is not read for that, since it is large: who reads it holds it against its address,
    /// and [`Self::doubt`]s it where it is another.
    pub(super) fn verify(&self, address: Digest) -> bool {
        let Some(reader) = self.open(address) else {
            self.verified().remove(&address);
            return false;
        };
        if self.verified().contains(&address) {
            return true;
        }
        if reader.is_linked() && !self.doubted().contains(&address) {
            return true;
        }
        let is_whole = reader.finish().is_ok();
        if is_whole {
            self.doubted().remove(&address);
            self.verified().insert(address);
            // What was used last is deleted last.
            let own = File::options()
                .append(true)
                .open(self.own.join(address.to_string()));
            let _ = own.and_then(|file| file.set_modified(SystemTime::now()));
        }
        is_whole
    }

    /// Doubts a blob: it is read again before it is used.
    pub(super) fn doubt(&self, address: Digest) {
        self.verified().remove(&address);
        self.doubted().insert(address);
    }

    /// Parts of a blob, each given by its offset and its length in bytes, and the length of the
    /// whole.
    pub(super) fn parts(
        &self,
        address: Digest,
        parts: &[(u64, usize)],
    ) -> std::io::Result<(u64, Vec<Vec<u8>>)> {
        let shared = self.shared.as_ref().map(|s| s.join(blob_file(&address)));
        let shared = shared.and_then(|path| File::open(path).ok());
        let mut file = match shared {
            Some(file) => file,
            None => File::open(self.own.join(address.to_string()))?,
        };
        let mut found = Vec::new();
        for &(start, len) in parts {
            let mut bytes = vec![0; len];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut bytes)?;
            found.push(bytes);
        }
        Ok((file.metadata()?.len(), found))
    }

    /// Stores a blob whose bytes are those of its address. Each writer has a file of its own until
    /// it is whole: two tasks may fetch the same blob at once.
    pub(super) async fn store(&self, address: Digest, bytes: &[u8]) -> Result<(), RuntimeError> {
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("{address}.{process}-{writer}.{PARTIAL}");
        let (partial, path) = (self.own.join(name), self.own.join(address.to_string()));
        tokio::fs::write(&partial, bytes)
            .await
            .map_err(|e| io("write", &partial, e))?;
        tokio::fs::rename(&partial, &path)
            .await
            .map_err(|e| io("write", &path, e))?;
        self.verified().insert(address);
        Ok(())
    }

    /// Deletes blobs of this process's own folder, those first that were used longest ago, until
    /// those that are not in `needed` take at most `bytes`.
    pub(super) fn trim(&self, needed: &BTreeSet<Digest>, bytes: u64) -> std::io::Result<()> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.own)? {
            let entry = entry?;
            let name = entry.file_name();
            let address = name.to_str().and_then(|name| name.parse::<Digest>().ok());
            let Some(address) = address.filter(|address| !needed.contains(address)) else {
                continue;
            };
            // Another task may have deleted it meanwhile.
            if let Ok(found) = entry.metadata() {
                let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                others.push((used, address, found.len()));
            }
        }
        others.sort();
        let mut total: u64 = others.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, address, len) in others {
            if total <= bytes {
                break;
            }
            self.verified().remove(&address);
            match std::fs::remove_file(self.own.join(address.to_string())) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
                _ => total -= len,
            }
        }
        Ok(())
    }
}

/// Removes what writers of a process that was killed have left half written. To be called before
/// any writes there.
///
/// # Errors
/// [`RuntimeError::Io`] where the folder cannot be read.
pub(crate) fn remove_partial(folder: &Path) -> Result<(), RuntimeError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(io("read", folder, why)),
    };
    for entry in entries {
        let path = entry.map_err(|why| io("read", folder, why))?.path();
        if path.extension().is_some_and(|end| end == PARTIAL) {
            std::fs::remove_file(&path).map_err(|why| io("remove", &path, why))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use concord_proto::Domain;
    use concord_proto::blob_store::link_file;
    use concord_proto::canonical;

    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn whole(folders: &Folders, address: Digest) -> bool {
        folders.verify(address)
    }

    #[test]
    fn a_blob_is_found_in_either_folder_or_by_a_link_and_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (own, shared) = (folder.path().join("own"), folder.path().join("shared"));
        std::fs::create_dir_all(&own).unwrap();
        let folders = Folders::new(own.clone(), Some(shared.clone()));
        let address = |bytes: &[u8]| Digest::of(Domain::Blob, bytes);

        write(&own.join(address(b"mine").to_string()), b"mine");
        write(&shared.join(blob_file(&address(b"beside"))), b"beside");
        let model = folder.path().join("model");
        write(&model, b"--elements--");
        let link = BlobLink::new(b"head".to_vec(), &model, 2, 8).unwrap();
        let linked = address(b"headelements");
        write(&shared.join(link_file(&linked)), &canonical::encode(&link));
        for found in [address(b"mine"), address(b"beside"), linked] {
            assert!(whole(&folders, found));
        }
        assert!(!whole(&folders, address(b"nowhere")));

        write(&own.join(address(b"right").to_string()), b"wrong");
        assert!(!whole(&folders, address(b"right")));
        let wrong = address(b"another head");
        write(&shared.join(link_file(&wrong)), &canonical::encode(&link));
        assert!(
            whole(&folders, wrong),
            "a model's file is believed until it is read"
        );
        assert!(folders.open(wrong).unwrap().finish().is_err());
        folders.doubt(wrong);
        assert!(!whole(&folders, wrong));
    }

    #[test]
    fn what_no_job_needs_is_bounded_and_the_newest_of_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::new(folder.path().to_path_buf(), None);
        let blob = |age: u64| {
            let bytes = vec![age as u8; 100];
            let address = Digest::of(Domain::Blob, &bytes);
            let path = folder.path().join(address.to_string());
            write(&path, &bytes);
            let file = File::options().append(true).open(&path).unwrap();
            let used = SystemTime::now() - Duration::from_secs(60 * age);
            file.set_modified(used).unwrap();
            (address, path)
        };
        let blobs: Vec<(Digest, PathBuf)> = (1..=5).map(blob).collect();
        write(&folder.path().join("something else"), &[0; 1_000]);
        let needed = BTreeSet::from([blobs[4].0]);
        let there = || -> Vec<bool> { blobs.iter().map(|(_, path)| path.exists()).collect() };
        folders.trim(&needed, 400).unwrap();
        assert_eq!(there(), [true; 5]);
        folders.trim(&needed, 250).unwrap();
        assert_eq!(there(), [true, true, false, false, true]);
        folders.trim(&needed, 0).unwrap();
        assert_eq!(there(), [false, false, false, false, true]);
        assert!(folder.path().join("something else").exists());
    }

    #[test]
    fn half_written_blobs_of_a_killed_process_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join(Digest::default().to_string());
        let half = folder
            .path()
            .join(format!("{}.7-1.partial", Digest::default()));
        write(&whole, b"");
        write(&half, b"");
        remove_partial(folder.path()).unwrap();
        assert!(whole.exists() && !half.exists());
        remove_partial(&folder.path().join("none")).unwrap();
    }
}
