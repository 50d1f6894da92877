//! What is wrong with an option of an adapter.

/// An option that cannot be used with a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` has {found}, but {expected}")]
pub struct BadSelection {
    /// Its name in PEFT.
    pub option: &'static str,
    /// The value.
    pub found: String,
    /// The rule that it breaks, as half a sentence.
    pub expected: String,
}

/// The error of an option.
pub(super) fn bad(
    option: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> BadSelection {
    BadSelection {
        option,
        found: found.to_string(),
        expected: expected.into(),
    }
}
