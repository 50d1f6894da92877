//! What `concord verify` comes to: shown, refuted, or neither.

use std::fmt;

use concord_verify::training::bundle::VerifyError;

/// Something that was to be shown does not hold.
#[derive(Debug)]
pub struct Refuted(pub String);

impl fmt::Display for Refuted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refuted {}

/// Whether an error says that something does not hold. Any other one says that it cannot be told.
pub fn is_refutation(error: &anyhow::Error) -> bool {
    error.is::<Refuted>() || error.is::<VerifyError>()
}

/// An error of a comparison of files with a proof: what was read is not what was signed, unless it
/// could not be read.
pub fn compared(error: anyhow::Error) -> anyhow::Error {
    let is_io = error.chain().any(|cause| cause.is::<std::io::Error>());
    match is_io {
        true => error,
        false => Refuted(crate::support::output::in_words(&error)).into(),
    }
}
