//! A cache of the digests of large models' tensors, beside the weights, because reading and hashing
//! a whole model takes long.
//!
//! A digest is used only for the same file with the same length and modification time. It is used
//! only to name a tensor to workers, which check the tensor's bytes against it. For a comparison
//! with a proof or a receipt, tensors are hashed each time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use concord_models::export::replace_file;
use concord_models::weights::ModelFolder;
use concord_proto::Digest;
use serde::{Deserialize, Serialize};

/// The cache file, in the model's folder.
const FILE: &str = ".concord-digests.json";

/// Smaller models have no cache, because they are hashed quickly.
const LARGE_BYTES: u64 = 64 << 20;

/// A longer file was not written by Concord.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The cached digests of a large model's tensors.
pub struct DigestCache {
    /// `None` for a small model, which has no cache.
    path: Option<PathBuf>,
    /// By the names of the files.
    files: BTreeMap<String, FileDigests>,
    has_changed: bool,
}

/// The digests of the tensors of one file.
#[derive(Default, Serialize, Deserialize)]
struct FileDigests {
    bytes: u64,
    /// The modification time, in nanoseconds since 1970.
    modified: u64,
    /// Device, inode and time of the last change of the inode, where the system has them. They tell
    /// a copy that preserves times from the original.
    #[serde(default)]
    identity: [i64; 4],
    tensors: BTreeMap<String, String>,
}

impl DigestCache {
    /// Opens the cache of a model. Digests of files that have changed are dropped.
    pub fn open(folder: &ModelFolder) -> Self {
        Self::of_larger(folder, LARGE_BYTES)
    }

    /// As [`Self::open`], for a model of at least `least` bytes.
    fn of_larger(folder: &ModelFolder, least: u64) -> Self {
        let stands: BTreeMap<String, FileDigests> = folder.files().filter_map(stands).collect();
        let bytes: u64 = stands.values().map(|file| file.bytes).sum();
        let path = (bytes >= least).then(|| folder.dir().join(FILE));
        let mut kept = path.as_deref().and_then(read).unwrap_or_default();
        let files = stands.into_iter().map(|(name, mut now)| {
            let same = |kept: &FileDigests| kept.stands() == now.stands();
            if let Some(kept) = kept.remove(&name).filter(same) {
                now.tensors = kept.tensors;
            }
            (name, now)
        });
        Self {
            files: files.collect(),
            path,
            has_changed: false,
        }
    }

    /// The digest of a tensor of a file, if it is in the cache.
    pub fn get(&self, file: &Path, tensor: &str) -> Option<Digest> {
        let file = self.files.get(name(file)?)?;
        file.tensors.get(tensor)?.parse().ok()
    }

    /// Adds the digest of a tensor of a file.
    pub fn put(&mut self, file: &Path, tensor: &str, digest: Digest) {
        if let Some(file) = name(file).and_then(|name| self.files.get_mut(name)) {
            let digest = digest.to_string();
            let before = file.tensors.insert(tensor.to_string(), digest.clone());
            self.has_changed |= before.as_ref() != Some(&digest);
        }
    }

    /// Writes the cache if it has changed. A failure is ignored: it only costs the time of hashing
    /// again.
    pub fn save(&self) {
        if let Some(path) = self.path.as_ref().filter(|_| self.has_changed)
            && let Ok(text) = serde_json::to_vec(&self.files)
        {
            let _ = replace_file(path, |out| out.write_all(&text));
        }
    }
}

impl FileDigests {
    fn stands(&self) -> (u64, u64, [i64; 4]) {
        (self.bytes, self.modified, self.identity)
    }
}

#[cfg(unix)]
fn identity(found: &fs::Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.ctime(),
        found.ctime_nsec(),
    ]
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> [i64; 4] {
    [0; 4]
}

/// The name of a file in its folder.
fn name(file: &Path) -> Option<&str> {
    file.file_name()?.to_str()
}

/// The name and the present state of a file, without digests.
fn stands(file: &Path) -> Option<(String, FileDigests)> {
    let found = fs::metadata(file).ok()?;
    let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let digests = FileDigests {
        bytes: found.len(),
        modified: u64::try_from(modified.as_nanos()).ok()?,
        identity: identity(&found),
        tensors: BTreeMap::new(),
    };
    Some((name(file)?.to_string(), digests))
}

fn read(path: &Path) -> Option<BTreeMap<String, FileDigests>> {
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use concord_models::config::DecoderConfig;
    use concord_models::export::{ExportDtype, write_generated};
    use concord_proto::Domain;

    use super::*;

    const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 8,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": 10, "max_position_embeddings": 32, "rms_norm_eps": 1e-5}"#;
    const NAME: &str = "model.norm.weight";

    fn write(dir: &Path) -> PathBuf {
        fs::write(dir.join("config.json"), CONFIG).unwrap();
        let tensors = DecoderConfig::from_json(CONFIG).unwrap().tensors();
        let path = dir.join("model.safetensors");
        let fill = |_: &str, _: u64, values: &mut [f32]| values.fill(1.0);
        write_generated(&path, &tensors, ExportDtype::BF16, 2, &fill).unwrap();
        path
    }

    #[test]
    fn what_is_kept_holds_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path());
        let digest = Digest::of(Domain::Blob, b"norm");
        let mut cache = DigestCache::of_larger(&ModelFolder::open(dir.path()).unwrap(), 1);
        assert_eq!(cache.get(&path, NAME), None);
        cache.put(&path, NAME, digest);
        cache.save();
        let again = || DigestCache::of_larger(&ModelFolder::open(dir.path()).unwrap(), 1);
        assert_eq!(again().get(&path, NAME), Some(digest));
        assert_eq!(again().get(&path, "another"), None);
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(again().get(&path, NAME), None);
    }

    /// A copy that has the length and the times of the file may have other numbers.
    #[cfg(unix)]
    #[test]
    fn a_copy_in_place_of_a_file_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path());
        let open = || DigestCache::of_larger(&ModelFolder::open(dir.path()).unwrap(), 1);
        let mut cache = open();
        cache.put(&path, NAME, Digest::of(Domain::Blob, b"norm"));
        cache.save();
        assert!(open().get(&path, NAME).is_some());
        let times = fs::metadata(&path).unwrap().modified().unwrap();
        let copy = dir.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        File::options()
            .append(true)
            .open(&copy)
            .unwrap()
            .set_modified(times)
            .unwrap();
        fs::rename(&copy, &path).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.modified().unwrap(), times);
        assert_eq!(open().get(&path, NAME), None);
    }

    #[test]
    fn nothing_is_kept_of_small_models_nor_believed_of_what_is_no_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path());
        let folder = ModelFolder::open(dir.path()).unwrap();
        let mut cache = DigestCache::open(&folder);
        cache.put(&path, NAME, Digest::default());
        cache.save();
        assert!(!dir.path().join(FILE).exists());
        fs::write(dir.path().join(FILE), "no list").unwrap();
        assert_eq!(DigestCache::of_larger(&folder, 1).get(&path, NAME), None);
    }
}
