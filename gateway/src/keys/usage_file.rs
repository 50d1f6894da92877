//! What keys have used on a day, on disk, so that it is known after a restart.
//!
//! Tokens that are set aside for answers are written before the engine is asked for the answers. If
//! a start finds such tokens, the process before it was killed: how many of them were drawn is
//! unknown, so all of them count as used.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use concord_proto::Digest;
use serde_json::{Map, Value, json};

use crate::error::GatewayError;

/// Tokens by key.
pub(crate) type TokensByKey = BTreeMap<Digest, u64>;

/// What keys have used and set aside on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DayUsage {
    /// Days since 1970, in UTC.
    pub day: u64,
    /// Tokens of answers that have ended, including their prompts.
    pub used: TokensByKey,
    /// Tokens set aside for running requests.
    pub set_aside: TokensByKey,
}

/// The usage file. One server at a time writes it.
pub(crate) struct UsageFile {
    path: PathBuf,
    /// What was last written to it.
    written: Option<DayUsage>,
    /// Held while this server writes the file.
    lock: Option<File>,
    /// Whether the last write failed, which was then logged.
    has_failed: bool,
}

impl DayUsage {
    /// What each key has used on `day`, including what was set aside when this was written. An
    /// answer counts for the day on which it ends, so tokens that were set aside yesterday count,
    /// too.
    fn spent(&self, day: u64) -> TokensByKey {
        if day == self.day + 1 {
            return self.set_aside.clone();
        }
        if self.day != day {
            return TokensByKey::new();
        }
        let mut spent = self.used.clone();
        for (key, tokens) in &self.set_aside {
            let known = spent.entry(*key).or_default();
            *known = known.saturating_add(*tokens);
        }
        spent
    }

    fn is_empty(&self) -> bool {
        self.used.is_empty() && self.set_aside.is_empty()
    }
}

impl UsageFile {
    /// The file at `path`. There may be none yet.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            written: None,
            lock: None,
            has_failed: false,
        }
    }

    /// Reads what keys have used on `day`.
    pub fn read(&mut self, day: u64) -> TokensByKey {
        let path = &self.path;
        self.written = match std::fs::read(path) {
            Ok(bytes) => match parse(&bytes) {
                Some(written) => Some(written),
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
        let used = self.written.as_ref().map(|written| written.spent(day));
        used.unwrap_or_default()
    }

    /// Makes this server the only one that writes the file, until this is dropped. If the file
    /// system has no locks or cannot be written, that is logged, and the server goes on.
    ///
    /// # Errors
    /// [`GatewayError::UsageShared`] where another server writes it.
    pub fn lock(&mut self) -> Result<(), GatewayError> {
        if self.lock.is_some() {
            return Ok(());
        }
        // The lock is on a file beside it, because the file itself is replaced at each write.
        let path = beside(&self.path, ".lock");
        let file = File::options().create(true).append(true).open(&path);
        let locked = file.map_err(TryLockError::Error).and_then(|file| {
            file.try_lock()?;
            Ok(file)
        });
        match locked {
            Ok(file) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(GatewayError::UsageShared {
                    path: self.path.clone(),
                });
            }
            Err(TryLockError::Error(error)) => {
                let path = path.display();
                tracing::warn!("cannot lock {path}: {error}; no other server may use it");
            }
        }
        Ok(())
    }

    /// Writes what keys have used and set aside, if that has changed.
    pub fn write(&mut self, new: DayUsage) {
        let is_known = match &self.written {
            Some(written) => *written == new,
            None => new.is_empty(),
        };
        if is_known {
            return;
        }
        let outcome = self.lock().map_err(|error| error.to_string());
        let outcome = outcome.and_then(|()| {
            let path = self.path.display();
            write(&self.path, &new).map_err(|error| format!("cannot write {path}: {error}"))
        });
        match outcome {
            Ok(()) => (self.written, self.has_failed) = (Some(new), false),
            Err(reason) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!("{reason}; a new start would forget what keys have used today");
                }
            }
        }
    }
}

/// The path with `ending` appended to its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(ending);
    name.into()
}

fn parse(bytes: &[u8]) -> Option<DayUsage> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let tokens = |value: &Value| -> Option<TokensByKey> {
        let read = |(key, tokens): (&String, &Value)| Some((key.parse().ok()?, tokens.as_u64()?));
        value.as_object()?.iter().map(read).collect()
    };
    Some(DayUsage {
        day: value["day"].as_u64()?,
        used: tokens(&value["tokens"])?,
        // Absent where no request was running.
        set_aside: match &value["set_aside"] {
            Value::Null => TokensByKey::new(),
            given => tokens(given)?,
        },
    })
}

/// Writes the file whole or not at all.
fn write(path: &Path, usage: &DayUsage) -> io::Result<()> {
    let object = |tokens: &TokensByKey| -> Map<String, Value> {
        let entry = |(key, tokens): (&Digest, &u64)| (key.to_string(), json!(tokens));
        tokens.iter().map(entry).collect()
    };
    let mut value = json!({"day": usage.day, "tokens": object(&usage.used)});
    if !usage.set_aside.is_empty() {
        value["set_aside"] = Value::Object(object(&usage.set_aside));
    }
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(value.to_string().as_bytes())?;
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
        let used: TokensByKey = [(ann(), 7)].into();
        let day = |used: &TokensByKey| DayUsage {
            day: 5,
            used: used.clone(),
            set_aside: TokensByKey::new(),
        };
        let mut file = UsageFile::at(path.clone());
        assert!(file.read(5).is_empty());
        file.write(day(&TokensByKey::new()));
        assert!(!path.exists(), "nothing was used, and nothing is written");
        file.write(day(&used));
        drop(file);
        assert_eq!(UsageFile::at(path.clone()).read(5), used);
        assert!(UsageFile::at(path.clone()).read(6).is_empty());
        let bad = "{\"day\":5,\"tokens\":{},\"set_aside\":7}";
        for broken in ["", "{", "[]", "{\"day\":5,\"tokens\":{\"x\":1}}", bad] {
            std::fs::write(&path, broken).expect("written");
            let mut file = UsageFile::at(path.clone());
            assert!(file.read(5).is_empty(), "{broken}");
            file.write(day(&used));
            assert_eq!(UsageFile::at(path.clone()).read(5), used, "{broken}");
        }
    }

    #[test]
    fn what_was_set_aside_counts_as_used_after_a_kill() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.usage");
        let bob = Digest::of(Domain::ApiKey, b"bob");
        let mut file = UsageFile::at(path.clone());
        file.write(DayUsage {
            day: 5,
            used: [(ann(), 7)].into(),
            set_aside: [(ann(), 30), (bob, 4)].into(),
        });
        let spent: TokensByKey = [(ann(), 37), (bob, 4)].into();
        assert_eq!(UsageFile::at(path.clone()).read(5), spent);
        // A kill at midnight: an answer that would have ended today counts to today.
        let aside: TokensByKey = [(ann(), 30), (bob, 4)].into();
        assert_eq!(UsageFile::at(path.clone()).read(6), aside);
        assert!(UsageFile::at(path).read(7).is_empty());
    }

    #[test]
    fn one_server_writes_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.usage");
        let mut first = UsageFile::at(path.clone());
        let mut second = UsageFile::at(path);
        first.lock().expect("nobody has it");
        first.lock().expect("it has it");
        let error = second.lock().expect_err("the first has it").to_string();
        assert!(
            error.contains("keys.usage") && error.contains("--dir"),
            "{error}"
        );
        drop(first);
        second.lock().expect("nobody has it any more");
    }

    fn ann() -> Digest {
        Digest::of(Domain::ApiKey, b"ann")
    }
}
