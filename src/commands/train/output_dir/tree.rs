//! Files and folders within the output folder.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

/// The files of a folder and its subfolders, by their paths within it, in order.
///
/// # Errors
/// Where a folder cannot be listed.
pub fn files(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        let cannot = || format!("cannot list {}", path.display());
        for entry in std::fs::read_dir(&path).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = match folder.as_str() {
                "" => name,
                folder => format!("{folder}/{name}"),
            };
            match entry.file_type().with_context(cannot)?.is_dir() {
                true => folders.push(name),
                false => files.push(name),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Makes renames in a folder survive a crash of the machine.
///
/// # Errors
/// Where the disk fails.
pub fn sync(dir: &Path) -> anyhow::Result<()> {
    if cfg!(unix) {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.with_context(|| format!("cannot write {}", dir.display()))?;
    }
    Ok(())
}

/// Removes a file by its path within `dir`, and the folders around it that are then empty.
pub(super) fn remove_file(dir: &Path, file: &str) -> anyhow::Result<()> {
    let path = dir.join(file);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("output_dir: cannot remove {}", path.display()));
        }
        _ => {}
    }
    remove_empty(dir, file);
    Ok(())
}

/// Removes the folders around `file`, a path within `dir`, that are empty.
pub(super) fn remove_empty(dir: &Path, file: &str) {
    let around = Path::new(file).ancestors().skip(1);
    for folder in around.filter(|folder| !folder.as_os_str().is_empty()) {
        // A folder that has other files stays.
        if std::fs::remove_dir(dir.join(folder)).is_err() {
            return;
        }
    }
}

/// Removes a folder with its contents, if it is there.
///
/// # Errors
/// Where it cannot be removed.
pub fn remove_folder(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("output_dir: cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
