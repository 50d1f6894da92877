//! Files that may change while the gateway runs.
//!
//! They are compared by their content: times and inodes are not reliable on some file systems, and
//! two changes within a moment look like one. The files are small, and are read a few times a
//! second.

use std::path::PathBuf;

use tokio::io::AsyncReadExt;

/// Most bytes of a file that are read.
const BYTES_MAX: u64 = 16 << 20;

/// Some files whose content belongs together.
pub(crate) struct WatchedFiles {
    paths: Vec<PathBuf>,
    /// The content that was last returned, or the last failure.
    known: Option<Read>,
    /// The content that was last seen.
    seen: Option<Read>,
}

/// The content of all files, or why they cannot be read.
pub(crate) type Read = Result<Vec<Vec<u8>>, String>;

impl WatchedFiles {
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            known: None,
            seen: None,
        }
    }

    /// Looks at the files. New content is returned once, and only after it was the same twice, so
    /// that a file that is being written is not read half.
    pub async fn look(&mut self) -> Option<Read> {
        let now = self.read().await;
        let is_new = self.known.as_ref() != Some(&now);
        let is_still = self.seen.as_ref() == Some(&now);
        self.seen = Some(now.clone());
        if !(is_new && is_still) {
            return None;
        }
        self.known = Some(now.clone());
        Some(now)
    }

    async fn read(&self) -> Read {
        let mut all = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let fail = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
            let file = tokio::fs::File::open(path).await.map_err(fail)?;
            let mut bytes = Vec::new();
            let mut bounded = file.take(BYTES_MAX);
            bounded.read_to_end(&mut bytes).await.map_err(fail)?;
            all.push(bytes);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_stands_still_is_given_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let mut files = WatchedFiles::new(vec![path.clone()]);
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        let told = |text: &str| Some(Ok(vec![text.as_bytes().to_vec()]));
        write("one");
        assert_eq!(files.look().await, None);
        assert_eq!(files.look().await, told("one"));
        assert_eq!(files.look().await, None);
        // A file that is being written.
        write("t");
        assert_eq!(files.look().await, None);
        write("two");
        assert_eq!(files.look().await, None);
        assert_eq!(files.look().await, told("two"));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(files.look().await, None);
        let failed = files.look().await.expect("a word").expect_err("a failure");
        assert!(failed.contains("cannot read"), "{failed}");
        assert_eq!(files.look().await, None);
        write("two");
        assert_eq!(files.look().await, None);
        assert_eq!(files.look().await, told("two"));
    }
}
