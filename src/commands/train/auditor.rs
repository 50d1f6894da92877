//! The auditor of a command: `--audit`.

use std::path::PathBuf;

use concord_proto::PublicKey;
use concord_proto::client::{NamedAuditor, RunOptions};

use super::output_dir::OutputDir;
use crate::support::output::Output;
use crate::support::pool::{LocalPool, OwnAuditor};

/// The auditor that a command names and starts, if one was asked for.
pub struct NamedByUs(Option<(PublicKey, PathBuf)>);

impl NamedByUs {
    /// Names the auditor that was asked for, with this rate.
    ///
    /// # Errors
    /// Where there is no folder for its key.
    pub fn of(
        rate: Option<u64>,
        output_dir: &OutputDir,
        options: &mut RunOptions,
    ) -> anyhow::Result<Self> {
        let Some(rate) = rate else {
            return Ok(Self(None));
        };
        let dir = OwnAuditor::folder(output_dir.state_dir().join("auditor"));
        let key = OwnAuditor::key(&dir)?;
        options.auditors = vec![NamedAuditor { key, rate }];
        Ok(Self(Some((key, dir))))
    }

    /// Its key.
    pub fn key(&self) -> Option<PublicKey> {
        self.0.as_ref().map(|(key, _)| *key)
    }

    /// Starts it, for the coordinator at `url`; `pool` is that of this machine. It works until it
    /// is dropped.
    ///
    /// # Errors
    /// Where its process cannot be started.
    pub fn start(
        &self,
        output: &Output,
        url: &str,
        pool: Option<&LocalPool>,
    ) -> anyhow::Result<Option<OwnAuditor>> {
        let Some((key, dir)) = &self.0 else {
            return Ok(None);
        };
        if !output.is_json() {
            eprintln!("auditor {key}, on this machine, draws by secrets of its own");
        }
        let store = pool.map(|pool| LocalPool::store(pool.dir()));
        let blobs = store.map(|store| format!("--blobs={}", store.display()));
        OwnAuditor::start(url, dir, blobs.as_slice()).map(Some)
    }
}
