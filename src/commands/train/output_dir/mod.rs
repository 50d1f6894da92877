//! The output folder of a job. It is created, tried, locked and marked before the first step, so
//! that a result can be written at the end and is not mixed with another one.

pub mod apart;
pub mod checkpoints;
mod links;
pub mod log;
mod replaced;
mod tree;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use concord_proto::JobId;
use serde_json::Value;

use crate::support::job_file::{AdapterKind, JobFile};
use crate::support::job_mark::{Mark, ResultKind};
use crate::support::result_names::is_ours;

use log::StepLog;
pub use replaced::REPLACED_DIR;
pub use tree::{files, remove_folder, sync};

/// The folder, within the output folder, of the state of a pool on this machine, until the result
/// is there.
const STATE_DIR: &str = ".concord-state";

/// The file that `concord train` locks while it works on the folder.
const LOCK_FILE: &str = ".concord-lock";

/// The folder, within the output folder, in which the result is assembled.
const STAGING_DIR: &str = ".concord-result";

/// The progress of the folder's job.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputStanding {
    /// The job is new here, or goes on.
    ToDo,
    /// The job is done; has its result as it was printed then.
    Done(Value),
}

/// The output folder of a job, held by this process alone.
#[derive(Debug)]
pub struct OutputDir {
    /// The path in the job file.
    dir: PathBuf,
    _lock: File,
    mark: Option<Mark>,
    about: AboutJob,
    /// Whether the folder was already marked when this process opened it.
    was_marked: bool,
    overwrite: bool,
    /// Whether a coordinator has the job, so that the folder must be kept.
    is_settled: bool,
    // Dropped last, when the folders may be empty and can be removed.
    _made: Made,
}

/// What the mark says of a job beyond its id.
#[derive(Clone, Debug, Default)]
pub struct AboutJob {
    /// A digest of all that it is but for its steps.
    pub apart_from_steps: String,
    /// Its keys and their values, for people.
    pub settings: Vec<(String, String)>,
}

/// Folders that were created for the output, the outermost first. Those that are empty when this is
/// dropped are removed.
#[derive(Debug)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // A folder that is not empty stays.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

impl OutputDir {
    /// Creates the folder, tries to write to it, locks it, and checks that neither inputs of the
    /// job nor another result are in it. With `overwrite`, another result of Concord is allowed.
    ///
    /// # Errors
    /// Saying what is in the way, and what would help.
    pub fn take(job: &JobFile, overwrite: bool) -> anyhow::Result<Self> {
        let dir = job.output_dir.clone();
        let made = make(&dir)?;
        check_contents(&dir, job)?;
        let was_marked = dir.join(Mark::FILE).exists() || dir.join(LOCK_FILE).exists();
        let mut output_dir = Self {
            _lock: lock(&dir)?,
            dir,
            _made: made,
            mark: None,
            about: AboutJob::default(),
            was_marked,
            overwrite,
            is_settled: false,
        };
        try_to_write(&output_dir.dir)?;
        output_dir.restore()?;
        output_dir.mark = Mark::read(&output_dir.dir)?;
        output_dir.was_marked = output_dir.mark.is_some();
        refuse_strangers(&output_dir.dir, output_dir.mark.as_ref())?;
        if let Some(mark) = &output_dir.mark {
            output_dir.refuse_kind(mark, ResultKind::of(job.adapter))?;
        }
        Ok(output_dir)
    }

    /// Refuses what [`OutputDir::take`] would refuse, as far as that shows without writing.
    ///
    /// # Errors
    /// Saying what is in the way, and what would help.
    pub fn look(job: &JobFile) -> anyhow::Result<()> {
        let dir = &job.output_dir;
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => {
                check_contents(dir, job)?;
                refuse_strangers(dir, Mark::read(dir)?.as_ref())
            }
            Ok(_) => Err(is_a_file(dir)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("output_dir: cannot use {}", dir.display()))
            }
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder, with links followed.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn canonical(&self) -> anyhow::Result<PathBuf> {
        canonical(&self.dir)
    }

    /// The folder for the state of a pool on this machine.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join(STATE_DIR)
    }

    /// The folder in which the result is assembled.
    pub fn staging_dir(&self) -> PathBuf {
        self.dir.join(STAGING_DIR)
    }

    /// Restores a result that an earlier process had put aside, if that process ended before its
    /// own job took the folder.
    fn restore(&self) -> anyhow::Result<()> {
        let is_marked = self.dir.join(Mark::FILE).exists();
        match replaced::waits(&self.dir) && is_marked {
            true => Ok(()),
            false => replaced::put_back(&self.dir),
        }
    }

    /// Whether the result of an earlier job is kept aside until that of this one is there.
    pub fn replaces(&self) -> bool {
        replaced::waits(&self.dir)
    }

    /// The keys of the job and their values, for people.
    pub fn settings(&self) -> &[(String, String)] {
        &self.about.settings
    }

    /// Says what the mark is to say of the job.
    pub fn describe(&mut self, about: AboutJob) {
        self.about = about;
    }

    /// Marks the folder as belonging to a job.
    ///
    /// # Errors
    /// Where it belongs to another one; says what would help.
    pub fn hold(
        &mut self,
        id: JobId,
        name: &str,
        kind: AdapterKind,
    ) -> anyhow::Result<OutputStanding> {
        if let Some(mark) = &self.mark {
            let same = mark.job == id.to_string();
            match &mark.result {
                Some(result) if same && !self.overwrite => {
                    return Ok(OutputStanding::Done(result.clone()));
                }
                None if same => return self.renew_mark(),
                _ if self.overwrite => self.clear()?,
                Some(_) => bail!("{}", self.other(mark, "the result")),
                None if self.has_steps()? => bail!("{}", self.other(mark, "the unfinished work")),
                // The other job has no steps: most likely its job file was corrected.
                None => self.clear()?,
            }
        }
        self.mark = None;
        refuse_strangers(&self.dir, None)?;
        self.mark = Some(Mark::new(id, name, ResultKind::of(kind)));
        self.renew_mark()
    }

    /// Writes the mark with what is known of the job.
    fn renew_mark(&mut self) -> anyhow::Result<OutputStanding> {
        let mark = self.mark.as_mut().context("the folder is not marked")?;
        mark.settings.clone_from(&self.about.settings);
        mark.apart_from_steps
            .clone_from(&self.about.apart_from_steps);
        mark.write(&self.dir)?;
        Ok(OutputStanding::ToDo)
    }

    /// Notes that a coordinator has the job. From here on the folder stays marked, whatever
    /// happens.
    ///
    /// # Errors
    /// Where the unfinished work that it replaces cannot be removed.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.is_settled = true;
        match replaced::is_unfinished(&self.dir)? {
            true => replaced::forget(&self.dir),
            false => Ok(()),
        }
    }

    /// Whether a coordinator has the job.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Notes in the mark which files the result will have, by their paths within the folder. To be
    /// called before they are written.
    ///
    /// # Errors
    /// Where one of them would be written through a link, or the mark cannot be written.
    pub fn note_files(&mut self, files: &[String]) -> anyhow::Result<()> {
        let mark = self.mark.as_mut().context("the folder is not marked")?;
        // The states of a proof are many files.
        let noted: BTreeSet<String> = mark.files.iter().cloned().collect();
        for file in files {
            links::refuse_at(&self.dir, Path::new(file))?;
            if !noted.contains(file) {
                mark.files.push(file.clone());
            }
        }
        mark.write(&self.dir)
    }

    /// Whether the file with this path within the folder belongs to the job's result.
    pub fn has_file(&self, file: &str) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| mark.files.iter().any(|ours| ours == file))
    }

    /// Marks the job as done.
    ///
    /// # Errors
    /// Where the mark cannot be written; the result is there nevertheless.
    pub fn finish(&mut self, result: &Value) -> anyhow::Result<()> {
        let mark = self.mark.as_mut().context("the folder is not marked")?;
        mark.result = Some(result.clone());
        mark.write(&self.dir)?;
        replaced::forget(&self.dir)?;
        self.forget_staging()?;
        remove_folder(&self.staging_dir())
    }

    /// Removes the state that was kept to go on. To be called once the job is done and nothing
    /// writes there any more.
    ///
    /// # Errors
    /// Where it cannot be removed; the result is there nevertheless.
    pub fn forget_state(&self) -> anyhow::Result<()> {
        remove_folder(&self.state_dir())
    }

    /// Puts aside what Concord has written for the marked job: the files of its result that the
    /// mark lists, the log, and the state.
    fn clear(&self) -> anyhow::Result<()> {
        let Some(mark) = &self.mark else {
            return Ok(());
        };
        self.forget_staging()?;
        remove_folder(&self.staging_dir())?;
        replaced::put_aside(&self.dir, mark)
    }

    fn has_steps(&self) -> anyhow::Result<bool> {
        Ok(StepLog::open(&self.dir)?.steps() > 0)
    }

    fn other(&self, mark: &Mark, what: &str) -> anyhow::Error {
        let kin = &mark.apart_from_steps;
        if !kin.is_empty() && *kin == self.about.apart_from_steps {
            return anyhow!(
                "output_dir: {} has {what} of this job with another number of steps or of warm-up. \
                 Both are a part of what a hash stands for, and all work is signed for its job: no \
                 step of the other one can be taken over. Give --overwrite to do all steps anew; \
                 to train its result on, give that as `initial_adapter` (of a full fine-tune: \
                 `base_model`), and choose another output_dir",
                self.dir.display()
            );
        }
        anyhow!(
            "output_dir: {} has {what} of another job ({} fine-tune `{}`, {}): choose another \
             output_dir, remove the folder, or give --overwrite to remove {what} first",
            self.dir.display(),
            mark.kind.name(),
            mark.name,
            mark.job.get(..8).unwrap_or(&mark.job)
        )
    }

    /// Refuses a job of another kind of result, which is another job whatever its data are.
    fn refuse_kind(&self, mark: &Mark, kind: ResultKind) -> anyhow::Result<()> {
        if mark.kind == kind || self.overwrite {
            return Ok(());
        }
        match &mark.result {
            Some(_) => Err(self.other(mark, "the result")),
            None if self.has_steps()? => Err(self.other(mark, "the unfinished work")),
            None => Ok(()),
        }
    }
}

impl Drop for OutputDir {
    /// Leaves nothing behind of a job that no coordinator has taken on.
    fn drop(&mut self) {
        // Failures are ignored, so that the user sees the error that led here.
        if !self.is_settled && replaced::waits(&self.dir) {
            let _ = self.forget_state();
            let _ = replaced::put_back(&self.dir);
            return;
        }
        if self.is_settled || self.was_marked {
            return;
        }
        let _ = self.forget_state();
        let _ = std::fs::remove_file(self.dir.join(Mark::FILE));
        let _ = std::fs::remove_file(self.dir.join(LOCK_FILE));
    }
}

/// Refuses files of others that the result would replace or be mixed with.
fn refuse_strangers(dir: &Path, mark: Option<&Mark>) -> anyhow::Result<()> {
    let place = dir.display();
    let listed = || format!("output_dir: cannot list {place}");
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(listed)? {
        let name = entry.with_context(listed)?.file_name();
        let name = name.to_string_lossy().into_owned();
        // What was written for the marked job.
        let is_below = |file: &String| file.split('/').next() == Some(&name);
        let is_put = |mark: &Mark| name == StepLog::FILE || mark.files.iter().any(is_below);
        if is_ours(&name) && !name.starts_with(".concord") && !mark.is_some_and(is_put) {
            strangers.push(name);
        }
    }
    strangers.sort();
    if strangers.is_empty() {
        return Ok(());
    }
    strangers.truncate(5);
    bail!(
        "output_dir: {place} has files of another model, adapter or result ({}) that \
         `concord train` did not put there, and the result would be mixed with them: choose \
         another output_dir, or move them away",
        strangers.join(", ")
    )
}

fn is_a_file(dir: &Path) -> anyhow::Error {
    anyhow!(
        "output_dir: {} is a file, and must be a folder",
        dir.display()
    )
}

/// Creates a folder and its parents. Returns those that were created.
fn make(dir: &Path) -> anyhow::Result<Made> {
    let mut made = Made(Vec::new());
    let mut path: Vec<&Path> = dir.ancestors().collect();
    path.reverse();
    for folder in path {
        // One by one, because folders that already exist must not be removed later.
        if folder.as_os_str().is_empty() || folder.is_dir() {
            continue;
        }
        match std::fs::create_dir(folder) {
            Ok(()) => made.0.push(folder.to_path_buf()),
            Err(_) if folder.is_dir() => {}
            Err(_) if folder == dir && folder.is_file() => {
                return Err(is_a_file(dir));
            }
            Err(_) if folder.is_file() => bail!(
                "output_dir: cannot make {}: {} is a file",
                dir.display(),
                folder.display()
            ),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("output_dir: cannot make {}", dir.display()));
            }
        }
    }
    Ok(made)
}

/// Checks a folder that is there, before anything in it is touched: it may neither overlap with
/// what the job reads, nor lead out of itself.
fn check_contents(dir: &Path, job: &JobFile) -> anyhow::Result<()> {
    apart::check(&canonical(dir)?, job)?;
    links::refuse_within(dir)?;
    for place in [dir, &dir.join(REPLACED_DIR)] {
        let listed = Mark::read(place)?
            .map(|mark| mark.files)
            .unwrap_or_default();
        for file in listed {
            links::refuse_at(place, Path::new(&file))?;
            links::refuse_at(dir, Path::new(&file))?;
        }
    }
    Ok(())
}

fn canonical(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(dir).with_context(|| format!("output_dir: cannot use {}", dir.display()))
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|why| unwritable(dir, why))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "output_dir: {} is in use by another `concord train`: wait until it ends, or choose \
             another output_dir",
            dir.display()
        ),
        Err(TryLockError::Error(why)) => {
            Err(why).with_context(|| format!("output_dir: cannot lock {}", path.display()))
        }
    }
}

/// Tries to write, because permission bits do not show whether the disk is read-only or full.
fn try_to_write(dir: &Path) -> anyhow::Result<()> {
    // A new file with a free name, so no link is followed. It is removed when it is dropped.
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(".concord-probe-")
            .tempfile_in(dir)?;
        file.write_all(&[0; 4_096])?;
        file.as_file().sync_all()
    };
    write().map_err(|why| unwritable(dir, why))
}

/// The error that a folder cannot be written.
fn unwritable(dir: &Path, why: std::io::Error) -> anyhow::Error {
    let remedy = match why.kind() {
        ErrorKind::StorageFull => ": make room on its disk, and the same command goes on",
        _ => "",
    };
    let words = format!("output_dir: {} cannot be written{remedy}", dir.display());
    anyhow::Error::from(why).context(words)
}

#[cfg(test)]
mod tests;
