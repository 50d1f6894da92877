//! What can be wrong with a bundle.

use std::path::PathBuf;

use concord_proto::PublicKey;

/// A statement of a bundle that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {statement}: {reason}{}", party_words(party.as_ref()))]
pub struct VerifyError {
    /// The file, one of [`super::FILES`].
    pub file: String,
    /// Which statement in it, such as "entry 12 (step 3 committed)".
    pub statement: String,
    /// What does not hold.
    pub reason: String,
    /// Whose statement it is, or who is at fault, where that is one party.
    pub party: Option<PublicKey>,
}

impl VerifyError {
    pub(super) fn new(file: &str, statement: impl Into<String>, reason: impl ToString) -> Self {
        Self {
            file: file.to_string(),
            statement: statement.into(),
            reason: reason.to_string(),
            party: None,
        }
    }

    pub(super) fn of(mut self, party: PublicKey) -> Self {
        self.party = Some(party);
        self
    }
}

fn party_words(party: Option<&PublicKey>) -> String {
    party.map_or(String::new(), |party| format!(" (of {party})"))
}

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file is missing, or its bytes are not those of a bundle.
    #[error(transparent)]
    Content(#[from] VerifyError),
    /// The file system refused.
    #[error("{}: {why}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        why: std::io::Error,
    },
}
