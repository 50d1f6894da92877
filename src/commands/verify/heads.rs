//! `--heads`: a proof is held to what workers and checkers have kept of the ledger that they were
//! shown.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_proto::canonical;
use concord_runtime::heads::HEADS;
use concord_verify::training::bundle::Bundle;
use concord_verify::training::heads::{HeadMatch, KeptHead, compare};
use serde_json::{Value, json};

use super::verdict::Refuted;
use crate::support::output::counted;

/// A longer file is no head.
const BYTES_MAX: u64 = 1 << 26;

/// What the kept heads show.
pub struct HeadsReport {
    /// How many heads lie on the ledger of the proof.
    same: u32,
    /// The number of the newest of their entries.
    newest: u64,
    /// How many entries the ledger has.
    entries: u64,
    /// Heads of the same job at other coordinators, which show nothing of this ledger.
    elsewhere: u32,
}

/// Holds a proof to the heads in these folders or files.
///
/// # Errors
/// [`Refuted`] where one of them lies on another history; else where one cannot be read, or none is
/// of this job at this coordinator.
pub fn run(paths: &[PathBuf], bundle: &Bundle) -> anyhow::Result<Option<HeadsReport>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut report = HeadsReport {
        same: 0,
        newest: 0,
        entries: bundle.ledger.len() as u64,
        elsewhere: 0,
    };
    for path in paths {
        for file in files(path)? {
            let kept = read(&file)?;
            let held = compare(bundle, &kept)
                .map_err(|why| Refuted(format!("{}: {why}", file.display())))?;
            match held {
                HeadMatch::Same { number } => {
                    report.same += 1;
                    report.newest = report.newest.max(number);
                }
                HeadMatch::OtherCoordinator => report.elsewhere += 1,
                HeadMatch::OtherJob => {}
                HeadMatch::NoHead => bail!(
                    "{}: it holds no entry that this coordinator has signed",
                    file.display()
                ),
            }
        }
    }
    if report.same == 0 {
        let elsewhere = match report.elsewhere {
            0 => String::new(),
            some => format!(
                " ({} of it at other coordinators)",
                counted(some.into(), "head")
            ),
        };
        bail!("--heads: none of the heads there is of this job at this coordinator{elsewhere}");
    }
    Ok(Some(report))
}

/// The heads in the folder of a worker or checker, or in that of its heads; or the one file.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let within = path.join(HEADS);
    let folder = match within.is_dir() {
        true => within,
        false => path.to_path_buf(),
    };
    let cannot = || format!("{}: the heads cannot be read", folder.display());
    let mut files = Vec::new();
    for file in fs::read_dir(&folder).with_context(cannot)? {
        let file = file.with_context(cannot)?.path();
        // One that was being written when its process was killed: the one before is there, too.
        let is_whole = file.extension().is_none_or(|extension| extension != "new");
        if is_whole && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<KeptHead> {
    let cannot = || format!("{}: this head cannot be read", path.display());
    let length = fs::metadata(path).with_context(cannot)?.len();
    if length > BYTES_MAX {
        bail!(
            "{}: {length} bytes are more than a head has",
            path.display()
        );
    }
    let bytes = fs::read(path).with_context(cannot)?;
    canonical::decode(&bytes).map_err(|why| {
        anyhow::anyhow!(
            "{}: no head that a worker or checker keeps (in `{HEADS}` of its --dir): {why}",
            path.display()
        )
    })
}

impl HeadsReport {
    /// A sentence for what it shows.
    pub fn shown(&self) -> String {
        format!(
            "the ledger is the one that {} kept, up to entry {} of {}",
            match self.same {
                1 => "one party has".to_string(),
                more => format!("{more} parties have"),
            },
            self.newest,
            self.entries
        )
    }

    pub fn object(&self) -> Value {
        json!({
            "same": self.same, "newest_entry": self.newest, "entries": self.entries,
            "elsewhere": self.elsewhere,
        })
    }
}
