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
    let partial = partial_path(path);
    let result = write_whole(&partial, write).and_then(|()| fs::rename(&partial, path));
    result.map_err(|error| {
        // The half-written file is removed to free the disk. If that fails, too, the first error
        // is still the one to report.
        let _ = fs::remove_file(&partial);
        ModelError::Io {
            action: "write",
            path: path.to_path_buf(),
            source: error,
        }
    })
}

fn write_whole(
    partial: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(partial)?);
    write(&mut out)?;
    // A full disk may be reported only here.
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
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
