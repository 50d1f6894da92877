//! Machine code kept on disk, so that it is compiled once on a machine.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arch::CodeTarget;
use super::modules::ModuleSource;
use super::nvrtc::OPTIONS;

/// The environment variable that names the folder in which Concord keeps files between runs.
pub const FOLDER_VARIABLE: &str = "CONCORD_CACHE";

/// First bytes of every file, with the version of what follows.
const MAGIC: &[u8; 16] = b"concord kernels1";

/// Bytes of a digest.
const DIGEST: usize = 32;

/// A folder of machine code, a file for each module and target. A file names what it was made of
/// and ends with a digest of itself: a stale, truncated or changed file is not used, and is written
/// again.
#[derive(Clone, Debug)]
pub struct Cache {
    /// `None` where no folder is known to keep it in.
    folder: Option<PathBuf>,
}

impl Cache {
    /// `kernels` in the folder that [`FOLDER_VARIABLE`] names, or else in `$XDG_CACHE_HOME/concord`
    /// or `~/.cache/concord`.
    pub fn usual() -> Self {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let folder = set(FOLDER_VARIABLE)
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("concord")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/concord")))
            .or_else(|| set("LOCALAPPDATA").map(|local| local.join("concord")));
        Self {
            folder: folder.map(|folder| folder.join("kernels")),
        }
    }

    /// The cache in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: Some(folder.to_path_buf()),
        }
    }

    /// Where it lies, for messages.
    pub fn place(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => format!("nowhere, as neither {FOLDER_VARIABLE} nor HOME is set"),
        }
    }

    /// The code that was kept for `source` as it is now; `None` where the file is absent, stale or
    /// damaged.
    pub(super) fn read(&self, source: &ModuleSource, target: CodeTarget) -> Option<Vec<u8>> {
        let mut file = fs::read(self.file(source, target)?).ok()?;
        let (content, digest) = file.split_at_checked(file.len().checked_sub(DIGEST)?)?;
        if blake3::hash(content) != *<&[u8; DIGEST]>::try_from(digest).ok()? {
            return None;
        }
        let code = content
            .strip_prefix(MAGIC)?
            .strip_prefix(key(source, target).as_bytes())?
            .len();
        let end = content.len();
        Some(file.drain(end - code..end).collect())
    }

    /// Keeps `code`. If the cache cannot be written, the code is compiled at every start.
    pub(super) fn write(&self, source: &ModuleSource, target: CodeTarget, code: &[u8]) {
        if let Some(file) = self.file(source, target) {
            let mut content = MAGIC.to_vec();
            content.extend(key(source, target).as_bytes());
            content.extend(code);
            let digest = blake3::hash(&content);
            content.extend(digest.as_bytes());
            // A failure costs only time: see above.
            let _ = replace(&file, &content);
        }
    }

    fn file(&self, source: &ModuleSource, target: CodeTarget) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        Some(folder.join(format!("{}.{}", source.module, target.name())))
    }
}

/// A digest of all that the code is made of.
fn key(source: &ModuleSource, target: CodeTarget) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    part(&target.name());
    OPTIONS.into_iter().for_each(&mut part);
    part(source.text);
    for (name, text) in source.headers {
        part(name);
        part(text);
    }
    hasher.finalize()
}

/// Writes beside the file, then puts it in its place, so that no reader sees half of it: two
/// workers may start at once.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let beside = file.with_extension(format!("{}-{number}.part", process::id()));
    let written = fs::write(&beside, content).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // If it stayed, every start would leave one more on the disk.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::arch::TARGETS;

    const SOURCE: ModuleSource = ModuleSource {
        module: "rope",
        text: "KERNEL(256) rope() {}",
        headers: &[("base.cuh", "typedef float f32;")],
    };

    fn cache() -> (tempfile::TempDir, Cache, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let cache = Cache::at(&folder.path().join("kernels"));
        cache.write(&SOURCE, TARGETS[3], b"machine code");
        let file = folder.path().join("kernels/rope.sm_80");
        (folder, cache, file)
    }

    #[test]
    fn what_is_kept_is_found_again_by_what_it_was_made_of() {
        let (_folder, cache, _) = cache();
        assert_eq!(
            cache.read(&SOURCE, TARGETS[3]).as_deref(),
            Some(&b"machine code"[..])
        );
        assert_eq!(cache.read(&SOURCE, TARGETS[4]), None, "another target");
        let edited = ModuleSource {
            text: "KERNEL(128) rope() {}",
            ..SOURCE
        };
        assert_eq!(cache.read(&edited, TARGETS[3]), None, "another source");
        let edited = ModuleSource {
            headers: &[("base.cuh", "typedef double f32;")],
            ..SOURCE
        };
        assert_eq!(cache.read(&edited, TARGETS[3]), None, "another header");
    }

    #[test]
    fn a_changed_byte_or_a_missing_end_is_noticed_and_mended() {
        let (_folder, cache, path) = cache();
        let whole = fs::read(&path).expect("the file was written");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("the file can be written");
            assert_eq!(
                cache.read(&SOURCE, TARGETS[3]),
                None,
                "byte {at} is another"
            );
            fs::write(&path, &whole[..at]).expect("the file can be written");
            assert_eq!(cache.read(&SOURCE, TARGETS[3]), None, "{at} bytes are left");
        }
        cache.write(&SOURCE, TARGETS[3], b"machine code");
        assert_eq!(fs::read(&path).expect("the file was written"), whole);
        let files = fs::read_dir(path.parent().expect("a folder")).expect("it can be read");
        assert_eq!(files.count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_written_keeps_nothing_and_harms_nothing() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("the folder can be written");
        let cache = Cache::at(&file.join("kernels"));
        cache.write(&SOURCE, TARGETS[0], b"machine code");
        assert_eq!(cache.read(&SOURCE, TARGETS[0]), None);
    }
}
