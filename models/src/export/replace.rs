//! Replaces a file whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::ModelError;

/// Writes a file beside `path`, and renames it to `path` when it is complete and on the disk.
///
/// Readers see the old file or the new one. A process that has mapped the old file keeps it.
///
/// # Errors
/// [`ModelError::Io`] naming `path`, on a full disk for example; the old file, where there was
/// one, is untouched, and the half-written one is removed.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ModelError> {
    let cannot = || ModelError::io("write", path);
    replace_file_by(path, |out| write(out).map_err(cannot()))
}

/// As [`replace_file`], of what is read on the way: `write` has errors of its own, too.
///
/// # Errors
/// As [`replace_file`], and those of `write`.
pub fn replace_file_by(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let partial = partial_path(path);
    let renamed = || fs::rename(&partial, path).map_err(ModelError::io("write", path));
    let result = write_whole(path, &partial, write).and_then(|()| renamed());
    result.inspect_err(|_| {
        // The half-written file is removed to free the disk. If that fails, too, the first error
        // is still the one to report.
        let _ = fs::remove_file(&partial);
    })
}

fn write_whole(
    path: &Path,
    partial: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let cannot = || ModelError::io("write", path);
    let file = File::create(partial).map_err(cannot())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    // A full disk may be reported only here.
    let file = out.into_inner().map_err(io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all()).map_err(cannot())
}

/// The path of the half-written file: in the same folder, so that the rename stays on one disk, and
/// with the process id, so that two processes that write the same file do not share it.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        replace_file(&path, |out| out.write_all(b"old")).unwrap();
        let error = replace_file(&path, |out| {
            out.write_all(&[7; 3 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("weights"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
