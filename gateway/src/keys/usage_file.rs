//! What keys have used of a day, on disk: a new start knows it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use concord_proto::Digest;
use serde_json::{Map, Value, json};

/// Tokens by key, of one day.
pub(crate) type Used = BTreeMap<Digest, u64>;

/// A file of what keys have used.
pub(crate) struct UsageFile {
    path: PathBuf,
    /// What stands in it.
    kept: Option<(u64, Used)>,
    /// Whether it is known that it cannot be written.
    has_failed: bool,
}

impl UsageFile {
    /// The file at `path`, and what it says of `day`. There may be none yet.
    pub fn open(path: PathBuf, day: u64) -> (Self, Used) {
        let kept = match std::fs::read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Some(kept) => Some(kept),
                None => {
                    let path = path.display();
                    tracing::error!(
                        "{path} does not say what keys have used, and is written anew: today \
                         begins at 0"
                    );
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::error!("cannot read {path}: {error}; what keys have used begins at 0");
                None
            }
        };
        let used = kept.as_ref().filter(|(kept, _)| *kept == day);
        let used = used.map(|(_, used)| used.clone()).unwrap_or_default();
        let file = Self {
            path,
            kept,
            has_failed: false,
        };
        (file, used)
    }

    /// Writes what was used of a day, where that is new.
    pub fn keep(&mut self, day: u64, used: Used) {
        let new = (day, used);
        if self.kept.as_ref() == Some(&new) || (self.kept.is_none() && new.1.is_empty()) {
            return;
        }
        match write(&self.path, &new) {
            Ok(()) => (self.kept, self.has_failed) = (Some(new), false),
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    let path = self.path.display();
                    tracing::error!(
                        "cannot write {path}: {error}; a new start would forget what keys have \
                         used today"
                    );
                }
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(u64, Used)> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let tokens = value["tokens"].as_object()?.iter();
    let used = tokens.map(|(digest, tokens)| Some((digest.parse().ok()?, tokens.as_u64()?)));
    Some((value["day"].as_u64()?, used.collect::<Option<_>>()?))
}

/// All of it, or nothing.
fn write(path: &Path, (day, used): &(u64, Used)) -> io::Result<()> {
    let tokens = used
        .iter()
        .map(|(digest, tokens)| (digest.to_string(), json!(tokens)));
    let tokens: Map<String, Value> = tokens.collect();
    let text = json!({"day": day, "tokens": tokens}).to_string();
    let mut name = path.as_os_str().to_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use concord_proto::Domain;

    use super::*;

    #[test]
    fn a_day_is_read_again_and_another_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.usage");
        let used: Used = [(Digest::of(Domain::ApiKey, b"ann"), 7)].into();
        let (mut file, none) = UsageFile::open(path.clone(), 5);
        assert!(none.is_empty());
        file.keep(5, Used::new());
        assert!(!path.exists(), "nothing was used, and nothing is written");
        file.keep(5, used.clone());
        assert_eq!(UsageFile::open(path.clone(), 5).1, used);
        assert!(UsageFile::open(path.clone(), 6).1.is_empty());
        for broken in ["", "{", "[]", "{\"day\":5,\"tokens\":{\"x\":1}}"] {
            std::fs::write(&path, broken).expect("written");
            let (mut file, none) = UsageFile::open(path.clone(), 5);
            assert!(none.is_empty(), "{broken}");
            file.keep(5, used.clone());
            assert_eq!(UsageFile::open(path.clone(), 5).1, used, "{broken}");
        }
    }
}
