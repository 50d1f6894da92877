//! The one error of this crate: which file, which row, what is wrong, and what would help.

use std::fmt;
use std::path::{Path, PathBuf};

use concord_text::TextError;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb: `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file, a folder or a whole data set.
    #[error("data set {path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would do.
        reason: String,
    },
    /// Texts that are joined do not fill one sequence.
    #[error(
        "data set {path}: its {tokens} tokens{among} do not fill one sequence of {len}; add text \
         or lower sequence_len",
        path = path.display()
    )]
    Unfilled {
        /// The first of the data sets.
        path: PathBuf,
        /// All their tokens.
        tokens: u64,
        /// Words on the data sets behind it, or nothing.
        among: String,
        /// Tokens of a sequence.
        len: u32,
    },
    /// One row of a file.
    #[error("data set {path}, {place}: {reason}", path = path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: RowPlace,
        /// What is wrong with it, and what would do.
        reason: String,
    },
    /// The tokenizer fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A sequence does not fit the positions that the model knows.
    #[error(
        "sequence_len is {asked}, but the model knows {max} positions \
         (max_position_embeddings); set sequence_len to at most {max}"
    )]
    SequenceTooLong {
        /// Tokens asked for.
        asked: u32,
        /// Positions of the model.
        max: usize,
    },
    /// A name that is not a kind of data set.
    #[error("`{found}` is not a type of data set; {hint}")]
    UnknownKind {
        /// The name given.
        found: String,
        /// The nearest one, or all of them.
        hint: String,
    },
}

/// Where a row is in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPlace {
    /// The line on which it begins.
    Line(u64),
    /// Its number, in a file without lines.
    Row(u64),
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Row(number) => write!(f, "row {number}"),
        }
    }
}

impl DataError {
    /// Makes a [`DataError::Io`] from a system error.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> DataError + use<> {
        let path = path.to_path_buf();
        move |source| DataError::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }

    pub(crate) fn row(path: &Path, place: RowPlace, reason: impl Into<String>) -> Self {
        Self::Row {
            path: path.to_path_buf(),
            place,
            reason: reason.into(),
        }
    }
}

/// At most so many characters of a value are shown in a message.
const SHOWN_MAX: usize = 80;

/// A value as a message shows it: its beginning, where it is long.
pub(crate) fn shown(value: impl ToString) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
