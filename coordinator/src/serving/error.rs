//! Why a generation is not taken.

/// Why a generation is not taken, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many wait already.
    #[error("{waiting} generations wait already: try again later")]
    Overloaded {
        /// How many.
        waiting: u32,
    },
    /// No pipeline is there.
    #[error("the model is not ready: {0}")]
    NotReady(String),
    /// More tokens than a sequence may have.
    #[error("the prompt has {prompt} tokens, and a sequence at most {positions}: shorten it")]
    TooLong {
        /// Tokens of the prompt.
        prompt: u32,
        /// Positions of a sequence, prompt and answer.
        positions: u32,
    },
    /// An adapter that is not loaded.
    #[error("no such adapter is loaded")]
    UnknownAdapter,
    /// It asks for what cannot be served.
    #[error("it cannot be served: {0}")]
    Other(String),
}
