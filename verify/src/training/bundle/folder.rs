//! A bundle as a folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use concord_proto::limits::BLOB_BYTES_MAX;

use super::{Bundle, BundleError, FILES, VerifyError};

impl Bundle {
    /// Writes the files into `folder`, which is created or replaced as a whole: if the machine
    /// stops at any moment, the folder has all of them or is as it was.
    ///
    /// # Errors
    /// [`BundleError::Io`] naming the path.
    pub fn write_dir(&self, folder: &Path) -> Result<(), BundleError> {
        let partial = beside(folder, ".partial");
        let replaced = beside(folder, ".replaced");
        if let Some(parent) = folder.parent() {
            at(parent, fs::create_dir_all(parent))?;
        }
        remove(&partial)?;
        at(&partial, fs::create_dir(&partial))?;
        for (name, bytes) in self.files() {
            let path = partial.join(name);
            let write = || -> io::Result<()> {
                let mut file = File::create(&path)?;
                file.write_all(&bytes)?;
                file.sync_all()
            };
            at(&path, write())?;
        }
        remove(&replaced)?;
        if folder.exists() {
            at(folder, fs::rename(folder, &replaced))?;
        }
        at(folder, fs::rename(&partial, folder))?;
        remove(&replaced)
    }

    /// Reads the files in `folder`. Other files there are not looked at.
    ///
    /// # Errors
    /// [`BundleError`] naming the file that is missing, cannot be read or holds other bytes.
    pub fn read_dir(folder: &Path) -> Result<Self, BundleError> {
        let mut files = Vec::new();
        for name in FILES {
            let path = folder.join(name);
            let length = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                // Reading a pipe would wait, and reading a device never end.
                Ok(_) => {
                    return Err(VerifyError::new(name, "the file", "it is no regular file").into());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(VerifyError::new(name, "the file", "it is missing").into());
                }
                Err(why) => return Err(BundleError::Io { path, why }),
            };
            if length > BLOB_BYTES_MAX {
                let reason = format!("{length} bytes are over the bound");
                return Err(VerifyError::new(name, "the file", reason).into());
            }
            let bytes = at(&path, fs::read(&path))?;
            files.push((name.to_string(), bytes));
        }
        Ok(Self::from_files(&files)?)
    }
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = folder.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    folder.with_file_name(name)
}

fn remove(folder: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => at(folder, result),
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, BundleError> {
    result.map_err(|why| BundleError::Io {
        path: path.to_owned(),
        why,
    })
}
