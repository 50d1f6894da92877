//! The result that `--overwrite` replaces: put aside, and given up only when the new one is there.
//! Where the new job never comes to be, it is put back.

use std::path::Path;

use anyhow::Context;

use super::log::StepLog;
use super::mark::Mark;
use super::{STATE_DIR, remove_file, remove_folder};

/// Where it waits, within the output folder.
pub const REPLACED_DIR: &str = ".concord-replaced";

/// Puts aside what the folder's mark lists, the mark last. A result that waits there already is
/// what the user had; what came after it goes.
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

/// Puts back what waits, but for files that are there again.
///
/// # Errors
/// Where a file cannot be moved.
pub(super) fn put_back(dir: &Path) -> anyhow::Result<()> {
    let aside = dir.join(REPLACED_DIR);
    let Some(mark) = Mark::read(&aside)? else {
        // Only some files were moved: the mark, which says which, is still in its place.
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

/// Whether a result waits, and a new job has its place.
pub(super) fn waits(dir: &Path) -> bool {
    is_whole(&dir.join(REPLACED_DIR))
}

/// Whether work waits that came to no result: it is worth keeping only until a new job is taken on.
pub(super) fn is_unfinished(dir: &Path) -> anyhow::Result<bool> {
    let mark = Mark::read(&dir.join(REPLACED_DIR))?;
    Ok(mark.is_some_and(|mark| mark.result.is_none()))
}

/// Gives up what waits.
///
/// # Errors
/// Where it cannot be removed.
pub(super) fn forget(dir: &Path) -> anyhow::Result<()> {
    remove_folder(&dir.join(REPLACED_DIR))
}

fn is_whole(aside: &Path) -> bool {
    aside.join(Mark::FILE).exists()
}

/// Moves a file or folder, by its path within both; nothing where it is not there.
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
    if let Some(parent) = source.parent().filter(|parent| *parent != from) {
        // Others may have put something there.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}
