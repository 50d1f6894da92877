//! The `code` of errors, for programs.

use axum::http::StatusCode;

/// The code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidType,
    MissingRequiredParameter,
    UnknownParameter,
    UnsupportedParameter,
    UnsupportedValue,
    UnsupportedModel,
    ContextLengthExceeded,
    NotEnabled,
    InvalidApiKey,
    InsufficientPermissions,
    ModelNotFound,
    ReceiptNotFound,
    RateLimitExceeded,
    Overloaded,
    NotReady,
    Failed,
    ShuttingDown,
}

impl Code {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 17] = [
        Self::InvalidType,
        Self::MissingRequiredParameter,
        Self::UnknownParameter,
        Self::UnsupportedParameter,
        Self::UnsupportedValue,
        Self::UnsupportedModel,
        Self::ContextLengthExceeded,
        Self::NotEnabled,
        Self::InvalidApiKey,
        Self::InsufficientPermissions,
        Self::ModelNotFound,
        Self::ReceiptNotFound,
        Self::RateLimitExceeded,
        Self::Overloaded,
        Self::NotReady,
        Self::Failed,
        Self::ShuttingDown,
    ];

    /// Its name in responses.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that it comes with.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// What it means, as a sentence.
    pub fn about(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        let bad = StatusCode::BAD_REQUEST;
        let later = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::InvalidType => ("invalid_type", bad, "A value is of a wrong type."),
            Self::MissingRequiredParameter => {
                ("missing_required_parameter", bad, "A field is missing.")
            }
            Self::UnknownParameter => ("unknown_parameter", bad, "A field is unknown."),
            Self::UnsupportedParameter => (
                "unsupported_parameter",
                bad,
                "A field of other servers is not supported here.",
            ),
            Self::UnsupportedValue => ("unsupported_value", bad, "Part of a message is not text."),
            Self::UnsupportedModel => (
                "unsupported_model",
                bad,
                "The model cannot do that, such as embeddings.",
            ),
            Self::ContextLengthExceeded => (
                "context_length_exceeded",
                bad,
                "Prompt and answer do not fit into the context of the model.",
            ),
            Self::NotEnabled => (
                "not_enabled",
                bad,
                "The server was started without what this needs.",
            ),
            Self::InvalidApiKey => (
                "invalid_api_key",
                StatusCode::UNAUTHORIZED,
                "No key was sent, or one that is unknown or was removed.",
            ),
            Self::InsufficientPermissions => (
                "insufficient_permissions",
                StatusCode::FORBIDDEN,
                "The key has no `admin` on its line.",
            ),
            Self::ModelNotFound => (
                "model_not_found",
                StatusCode::NOT_FOUND,
                "No model or adapter of this name is served.",
            ),
            Self::ReceiptNotFound => (
                "receipt_not_found",
                StatusCode::NOT_FOUND,
                "There is no receipt of this name, or it belongs to another key.",
            ),
            Self::RateLimitExceeded => (
                "rate_limit_exceeded",
                StatusCode::TOO_MANY_REQUESTS,
                "A limit of the key is reached: requests a minute, at a time, or tokens a day.",
            ),
            Self::Overloaded => ("overloaded", later, "Too many requests wait already."),
            Self::NotReady => (
                "not_ready",
                later,
                "Workers are missing, or still load the model.",
            ),
            Self::Failed => (
                "failed",
                later,
                "A stage was lost in the middle of an answer, and not replaced in time.",
            ),
            Self::ShuttingDown => ("shutting_down", later, "The server is shutting down."),
        }
    }
}
