//! Refuses links in an output folder. A folder may come from others: a link in it would lead what
//! is written, moved and removed there to files outside it.

use std::fs::FileType;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};

use crate::support::result_names::is_ours;

/// Refuses links, pipes and devices among the files of a result and of Concord in `dir`, however
/// deep. Nothing is followed.
///
/// # Errors
/// Naming the first one that is found.
pub(super) fn refuse_within(dir: &Path) -> anyhow::Result<()> {
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let listed = || format!("output_dir: cannot list {}", folder.display());
        let entries = match std::fs::read_dir(&folder) {
            // Another command works here, and has removed it; that is refused by the lock.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(listed)?,
        };
        for entry in entries {
            let entry = entry.with_context(listed)?;
            // Files of others lie beside them, and are not touched.
            if folder == dir && !is_ours(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let kind = entry.file_type().with_context(listed)?;
            refuse(&entry.path(), kind)?;
            if kind.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Refuses links, pipes and devices at `file`, a path within `dir`, and at the folders around it.
///
/// # Errors
/// Naming the first one that is found.
pub fn refuse_at(dir: &Path, file: &Path) -> anyhow::Result<()> {
    let mut path = dir.to_path_buf();
    for part in file.components() {
        path.push(part);
        match std::fs::symlink_metadata(&path) {
            Ok(found) => refuse(&path, found.file_type())?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("output_dir: cannot use {}", path.display()));
            }
        }
    }
    Ok(())
}

fn refuse(path: &Path, kind: FileType) -> anyhow::Result<()> {
    if kind.is_file() || kind.is_dir() {
        return Ok(());
    }
    let what = match kind.is_symlink() {
        true => "a link",
        false => "no regular file",
    };
    bail!(
        "output_dir: {} is {what}, and links and special files are not followed there: remove it, \
         or choose another output_dir",
        path.display()
    )
}
