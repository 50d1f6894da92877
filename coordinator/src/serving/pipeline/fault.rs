//! What is wrong with a stage.

/// What is wrong with a stage of the plan in effect. The plan ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StageFault {
    /// It does not answer, or its stream ended.
    Lost(String),
    /// It says itself that it cannot go on. It may only have noticed the end of another stage.
    GaveUp(String),
    /// It refuses what the stage before it sends. One of the two is wrong.
    Refused(String),
    /// It says what cannot be true.
    Distrusted(String),
}

impl StageFault {
    pub(super) fn distrusted(reason: &str) -> Self {
        Self::Distrusted(reason.to_string())
    }

    pub(super) fn lost(reason: &str) -> Self {
        Self::Lost(reason.to_string())
    }
}
