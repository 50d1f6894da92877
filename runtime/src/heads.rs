//! What this process keeps of the ledgers that it was shown, for `concord verify --heads`: the
//! newest entry of each, which binds all before, and its own findings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_proto::ledger::{Finding, LedgerEntry, Verdict};
use concord_proto::{JobId, PublicKey, Signed, canonical};
use concord_verify::training::heads::{FINDINGS_MAX, KeptHead};

use crate::durable::replace_file;

/// The folder of kept heads within that of a worker or checker.
pub const HEADS: &str = "heads";

/// How often a head is written: an older one is as good, but for the entries between the two.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// Jobs whose heads stay on disk: beyond that the ones go that were written first.
const FILES_MAX: usize = 4_096;

/// The heads of one process. What was not written yet is written when it ends.
pub(crate) struct Heads {
    dir: PathBuf,
    kept: Mutex<BTreeMap<(PublicKey, JobId), Kept>>,
}

struct Kept {
    number: u64,
    head: KeptHead,
    written: Option<Instant>,
    is_written: bool,
    /// Whether another entry of the same number was shown.
    is_forked: bool,
}

impl Heads {
    /// Those of the worker or checker whose folder is `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join(HEADS),
            kept: Mutex::default(),
        }
    }

    /// A coordinator shows an entry of its ledger of a job. No work stops for that: where the disk
    /// fails, or another entry of this number was shown before, the log says so.
    pub(crate) fn saw(&self, coordinator: PublicKey, job: JobId, entry: &Signed) {
        let Ok(opened) = entry.open::<LedgerEntry>() else {
            return;
        };
        if entry.signer != coordinator {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, job);
        if !kept.contains_key(&place)
            && let Some(before) = self.read(&place)
        {
            kept.insert(place, before);
        }
        let new = KeptHead {
            job,
            head: entry.clone(),
            findings: Vec::new(),
        };
        let known = kept.entry(place).or_insert_with(|| Kept {
            number: opened.number,
            head: new,
            written: None,
            is_written: false,
            is_forked: false,
        });
        if opened.number == known.number && *entry != known.head.head {
            let (coordinator, number) = (coordinator.short(), opened.number);
            tracing::warn!("coordinator {coordinator} has shown another entry {number} before");
        }
        // One that lies on two histories is not replaced: it shows that there are two.
        known.is_forked |= opened.number == known.number && *entry != known.head.head;
        if opened.number > known.number && !known.is_forked {
            known.number = opened.number;
            known.head.head = entry.clone();
            known.is_written = false;
        }
        let is_due = |at: Instant| at.elapsed() >= WRITTEN_EVERY;
        if !known.is_written && known.written.is_none_or(is_due) {
            self.write(&place, known);
        }
    }

    /// This process has given a verdict: one that found a leaf wrong is kept.
    pub(crate) fn said(&self, coordinator: PublicKey, verdict: &Signed) {
        let Ok(opened) = verdict.open::<Verdict>() else {
            return;
        };
        if !matches!(opened.finding, Finding::Differs { .. }) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (coordinator, opened.job);
        let Some(known) = kept.get_mut(&place) else {
            return;
        };
        if known.head.findings.len() < FINDINGS_MAX && !known.head.findings.contains(verdict) {
            known.head.findings.push(verdict.clone());
            self.write(&place, known);
        }
    }

    /// Writes what was not written yet.
    pub(crate) fn flush(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, kept) in kept.iter_mut().filter(|(_, kept)| !kept.is_written) {
            self.write(place, kept);
        }
    }

    fn path(&self, (coordinator, job): &(PublicKey, JobId)) -> PathBuf {
        self.dir.join(format!("{}-{coordinator}", job.0))
    }

    /// What an earlier process has kept. What cannot be read is as none.
    fn read(&self, place: &(PublicKey, JobId)) -> Option<Kept> {
        let bytes = std::fs::read(self.path(place)).ok()?;
        let head: KeptHead = canonical::decode(&bytes).ok()?;
        let entry: LedgerEntry = head.head.open().ok()?;
        (head.job == place.1 && head.head.signer == place.0).then_some(Kept {
            number: entry.number,
            head,
            written: None,
            is_written: true,
            is_forked: false,
        })
    }

    fn write(&self, place: &(PublicKey, JobId), kept: &mut Kept) {
        let path = self.path(place);
        let is_new = kept.written.is_none() && !path.exists();
        kept.written = Some(Instant::now());
        let bytes = canonical::encode(&kept.head);
        let written = std::fs::create_dir_all(&self.dir)
            .and_then(|()| match is_new {
                true => self.make_room(),
                false => Ok(()),
            })
            .and_then(|()| replace_file(&path, &bytes));
        kept.is_written = written.is_ok();
        if let Err(why) = written {
            let path = path.display();
            tracing::warn!("{path}: this head of a ledger cannot be written: {why}");
        }
    }

    /// Deletes the heads that were written first, where there are too many.
    fn make_room(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for file in std::fs::read_dir(&self.dir)? {
            let file = file?;
            files.push((file.metadata()?.modified()?, file.path()));
        }
        files.sort();
        let over = files.len().saturating_sub(FILES_MAX - 1);
        files[..over]
            .iter()
            .try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::ledger::LedgerEvent;
    use concord_proto::{Digest, Keypair};

    use super::*;

    const JOB: JobId = JobId(Digest([7; 32]));

    fn entry(coordinator: &Keypair, number: u64, step: u32) -> Signed {
        let entry = LedgerEntry {
            number,
            previous: Digest::default(),
            event: LedgerEvent::Started {
                attempt: 0,
                step,
                epoch: 0,
            },
        };
        Signed::new(coordinator, &entry)
    }

    fn on_disk(dir: &Path, coordinator: &Keypair) -> KeptHead {
        let file = format!("{}-{}", JOB.0, coordinator.public());
        let bytes = std::fs::read(dir.join(HEADS).join(file)).unwrap();
        canonical::decode(&bytes).unwrap()
    }

    #[test]
    fn the_newest_head_is_kept_and_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let (key, other) = (Keypair::from_secret([1; 32]), Keypair::from_secret([2; 32]));
        let heads = Heads::new(dir.path());
        for number in [3, 5, 4] {
            let entry = entry(&key, number, 0);
            heads.saw(key.public(), JOB, &entry);
        }
        drop(heads);
        assert_eq!(on_disk(dir.path(), &key).head, entry(&key, 5, 0));
        let heads = Heads::new(dir.path());
        // Another entry of the same number, in a later process; and one that it has not signed.
        heads.saw(key.public(), JOB, &entry(&key, 5, 1));
        // Nor does a newer one of that history take its place.
        heads.saw(key.public(), JOB, &entry(&key, 6, 1));
        heads.saw(key.public(), JOB, &entry(&other, 9, 1));
        drop(heads);
        assert_eq!(on_disk(dir.path(), &key).head, entry(&key, 5, 0));
    }

    #[test]
    fn only_so_many_jobs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = Keypair::from_secret([1; 32]);
        let heads = Heads::new(dir.path());
        std::fs::create_dir_all(dir.path().join(HEADS)).unwrap();
        for number in 0..FILES_MAX + 10 {
            std::fs::write(dir.path().join(HEADS).join(number.to_string()), b"").unwrap();
        }
        heads.saw(key.public(), JOB, &entry(&key, 5, 0));
        let left = std::fs::read_dir(dir.path().join(HEADS)).unwrap().count();
        assert_eq!(left, FILES_MAX);
        on_disk(dir.path(), &key);
    }
}
