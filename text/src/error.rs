//! The one error of this crate: what was refused, where, and what would be accepted.

use std::path::{Path, PathBuf};

/// Why a text, a tokenizer, a template or a grammar cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
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
    /// A file that must be JSON is not.
    #[error("{path}: not valid JSON: {reason}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        reason: String,
    },
    /// `tokenizer.json` cannot be read, or refuses a text.
    #[error("{path}: {reason}", path = path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer said.
        reason: String,
    },
    /// The tokenizer knows ids that the model has no embedding for.
    #[error(
        "{path}: the tokenizer does not fit the model: its token {token:?} has id {id}, and the \
         model has only {vocab} embeddings; use the tokenizer that the model was trained with",
        path = path.display()
    )]
    TokenizerMismatch {
        /// The tokenizer's file.
        path: PathBuf,
        /// The first token that is out of range.
        token: String,
        /// Its id.
        id: u32,
        /// `vocab_size` of the model.
        vocab: usize,
    },
    /// The chat template of a model cannot be read.
    #[error("{path}: the chat template cannot be used: {reason}", path = path.display())]
    Template {
        /// The file that it stands in.
        path: PathBuf,
        /// What is wrong with it, with the line.
        reason: String,
    },
    /// A chat template refuses a conversation: the fault of its sender.
    #[error("the model's chat template refuses this conversation: {reason}")]
    Conversation {
        /// The template's own words, or what it stumbled over.
        reason: String,
    },
    /// A grammar or a schema cannot be used: the fault of its sender.
    #[error("the grammar cannot be used: {reason}")]
    Grammar {
        /// What is wrong or not supported.
        reason: String,
    },
    /// A token that the grammar does not allow where it came.
    #[error("token {token} is not allowed by the grammar: {reason}")]
    NotAllowed {
        /// The token.
        token: u32,
        /// What the grammar expected.
        reason: String,
    },
    /// The tools of a request cannot be used: the fault of their sender.
    #[error("the tools cannot be used: {reason}")]
    Tools {
        /// What is wrong, and what would do.
        reason: String,
    },
}

impl TextError {
    /// Makes a [`TextError::Json`] of a parser's error.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> TextError + use<> {
        let path = path.to_path_buf();
        move |error| TextError::Json {
            path,
            reason: error.to_string(),
        }
    }

    /// Makes a [`TextError::Io`] of a system error.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> TextError + use<> {
        let path = path.to_path_buf();
        move |source| TextError::Io {
            action,
            path,
            source,
        }
    }
}
