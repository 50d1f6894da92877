//! Why the store cannot be used, and what would help.

use std::path::PathBuf;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "{} is in use by another coordinator: stop it, or give this one a folder of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// Its folder cannot be used.
    #[error("cannot use the folder {}: {why}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// No room is left.
    #[error("no room is left on the disk of {}: free some, nothing is lost", .0.display())]
    Full(PathBuf),
    /// Of another release.
    #[error(
        "{} has schema version {found}, and this release reads {ours}: use the release that wrote \
         it",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this release.
        ours: u32,
    },
    /// Something in it cannot be read.
    #[error("{what} in the store cannot be read: {why}")]
    Damaged {
        /// What.
        what: String,
        /// Why not.
        why: String,
    },
    /// SQLite refuses.
    #[error("the store {} refuses: {why}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: sqlx::Error,
    },
}

/// SQLite's code for a full disk.
const SQLITE_FULL: &str = "13";

impl StoreError {
    pub(super) fn of(path: &std::path::Path, why: sqlx::Error) -> Self {
        let path = path.to_path_buf();
        let code = why.as_database_error().and_then(|error| error.code());
        if code.as_deref() == Some(SQLITE_FULL) {
            Self::Full(path)
        } else {
            Self::Database { path, why }
        }
    }

    pub(super) fn damaged(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged {
            what: what.into(),
            why: why.to_string(),
        }
    }
}
