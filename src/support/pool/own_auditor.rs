//! The client's own auditor: a process on this machine that re-runs what its own secrets draw.

use std::path::Path;

use anyhow::Context;
use concord_proto::PublicKey;
use concord_proto::session::Role;
use concord_runtime::identity;

use super::crew::Crew;
use super::member::Start;

/// It ends when this is dropped.
pub struct OwnAuditor {
    _crew: Crew,
}

impl OwnAuditor {
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
