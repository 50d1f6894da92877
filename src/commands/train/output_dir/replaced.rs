//! The result that `--overwrite` replaces. It is put aside, and removed only when the new one is
//! there. If no coordinator takes the new job on, it is put back.

use std::path::Path;

use anyhow::Context;

use super::STATE_DIR;
use super::log::StepLog;
use super::tree::{remove_empty, remove_file, remove_folder};
use crate::support::job_mark::Mark;

/// The folder, within the output folder, in which it is kept.
pub const REPLACED_DIR: &str = ".concord-replaced";

/// Puts aside the files that the folder's mark lists, and the mark last. If an older result is
/// already there, that one is kept, and the files of the later job are removed.
///
/// # Errors
/// Where a file cannot be moved.
pub(super) fn put_aside(dir: &Path, mark: &Mark) -> anyhow::Result<()> {
    let aside = dir.join(REPLACED_DIR);
    let log = StepLog::FILE.to_string();
    if is_whole(&aside) {
        for file in mark.files.iter().chain([&log]) {
            remove_file(dir, file)?;
        }
        return remove_folder(&dir.join(STATE_DIR));
    }
    let rest = [log, STATE_DIR.to_string(), Mark::FILE.to_string()];
    for file in mark.files.iter().chain(&rest) {
        move_over(dir, &aside, file)?;
    }
    Ok(())
}

/// Puts the result back, except for files that exist again.
///
/// # Errors
/// Where a file cannot be moved.
pub(super) fn put_back(dir: &Path) -> anyhow::Result<()> {
    let aside = dir.join(REPLACED_DIR);
    let Some(mark) = Mark::read(&aside)? else {
        // The move was interrupted: the mark, which lists the files, is still in its place.
        if let Some(mark) = Mark::read(dir)?.filter(|_| aside.exists()) {
            move_back(dir, &aside, &mark)?;
            let _ = std::fs::remove_dir(&aside);
        }
        return Ok(());
    };
    move_back(dir, &aside, &mark)?;
    move_over(&aside, dir, Mark::FILE)?;
    remove_folder(&aside)
}

fn move_back(dir: &Path, aside: &Path, mark: &Mark) -> anyhow::Result<()> {
    let rest = [StepLog::FILE.to_string(), STATE_DIR.to_string()];
    mark.files
        .iter()
        .chain(&rest)
        .try_for_each(|file| move_over(aside, dir, file))
}

/// Whether a complete result is kept aside, so that the folder belongs to a new job.
pub(super) fn waits(dir: &Path) -> bool {
    is_whole(&dir.join(REPLACED_DIR))
}

/// Whether unfinished work is kept aside, which is needed only until a coordinator takes the new
/// job on.
pub(super) fn is_unfinished(dir: &Path) -> anyhow::Result<bool> {
    let mark = Mark::read(&dir.join(REPLACED_DIR))?;
    Ok(mark.is_some_and(|mark| mark.result.is_none()))
}

/// Removes what was kept aside.
///
/// # Errors
/// Where it cannot be removed.
pub(super) fn forget(dir: &Path) -> anyhow::Result<()> {
    remove_folder(&dir.join(REPLACED_DIR))
}

fn is_whole(aside: &Path) -> bool {
    aside.join(Mark::FILE).exists()
}

/// Moves a file or folder, by its path within both folders. Does nothing where it is not there.
fn move_over(from: &Path, to: &Path, file: &str) -> anyhow::Result<()> {
    let (source, target) = (from.join(file), to.join(file));
    if !source.exists() {
        return Ok(());
    }
    let failed = || format!("output_dir: cannot move {} aside", source.display());
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(failed)?;
    }
    std::fs::rename(&source, &target).with_context(failed)?;
    remove_empty(from, file);
    Ok(())
}
