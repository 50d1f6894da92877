//! The client's own auditor: a process on this machine that re-runs what its own secrets draw.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use concord_proto::PublicKey;
use concord_proto::session::Role;
use concord_runtime::identity;

use crate::support::client_key;

use super::crew::Crew;
use super::member::Start;

/// Auditors of one user that run at once.
const OWN_MAX: usize = 64;

/// Whether nobody holds a folder, and it can be written.
fn is_free(dir: &Path) -> bool {
    let lock = fs::create_dir_all(dir).and_then(|()| File::create(dir.join(identity::LOCK_FILE)));
    lock.is_ok_and(|lock| lock.try_lock().is_ok())
}

/// It ends when this is dropped.
pub struct OwnAuditor {
    _crew: Crew,
}

impl OwnAuditor {
    /// The folder of an auditor of this user that does not run now, so that one key, and what it
    /// remembers, serves many jobs; `other` where no folder can be used.
    pub fn folder(other: PathBuf) -> PathBuf {
        let Some(own) = client_key::folder() else {
            return other;
        };
        let mut folders = (1..=OWN_MAX).map(|number| own.join(format!("auditor-{number}")));
        folders.find(|dir| is_free(dir)).unwrap_or(other)
    }

    /// The key of the auditor whose folder is `dir`, made on first use.
    ///
    /// # Errors
    /// Where the folder cannot be read or written.
    pub fn key(dir: &Path) -> anyhow::Result<PublicKey> {
        let key = identity::load_or_make(dir).context("cannot make the key of the auditor")?;
        Ok(key.public())
    }

    /// Starts it, with more options of `concord checker`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where its process cannot be started.
    pub fn start(url: &str, dir: &Path, more: &[String]) -> anyhow::Result<Self> {
        let crew = Crew::new();
        let own = ["--auditor", "--threads", "1"].map(str::to_string);
        crew.join(Start {
            role: Role::Auditor,
            number: 0,
            url: url.to_string(),
            dir: dir.to_path_buf(),
            options: [&own[..], more].concat(),
        })?;
        Ok(Self { _crew: crew })
    }
}
