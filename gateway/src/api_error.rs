//! Errors in the form that OpenAI's clients expect.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::code::Code;
use crate::engine::Refused;

/// An error response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    /// Cause, place and remedy.
    pub message: String,
    /// OpenAI's `type` of the error.
    pub kind: &'static str,
    /// The field of the request that is wrong, such as "messages[2].content".
    pub param: Option<String>,
    /// The code, for programs.
    pub code: Option<Code>,
    /// Seconds after which asking again may help.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// Any error; the functions below fit most.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// The request as a whole is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field of the request is wrong.
    pub fn param(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::invalid(message)
        }
    }

    /// Something that does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// A model that is not served.
    pub fn model_not_found(model: &str, known: &[String]) -> Self {
        let message = format!(
            "The model '{model}' does not exist here. There is: {}.",
            known.join(", ")
        );
        Self {
            param: Some("model".to_string()),
            code: Some(Code::ModelNotFound),
            ..Self::not_found(message)
        }
    }

    /// A fault of the server.
    pub fn server(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "server_error", message)
    }

    /// The request may succeed later.
    pub fn unavailable(code: Code, message: impl Into<String>, seconds: u64) -> Self {
        Self::new(code.status(), "server_error", message)
            .code(code)
            .retry_after(seconds)
    }

    /// The same error with a code.
    pub fn code(self, code: Code) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// The same error with a time to wait.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// The prompt and the answer do not fit. `field` is the request's field with the prompt.
    pub fn too_long(field: &str, prompt: u32, answer: u32, positions: u32) -> Self {
        let part = match field {
            "messages" => "messages",
            _ => "prompt",
        };
        let message = format!(
            "This model's maximum context length is {positions} tokens. However, you requested {} \
             tokens ({prompt} in the {part}, {answer} in the completion). Please reduce the length \
             of the {part} or the completion.",
            u64::from(prompt) + u64::from(answer)
        );
        Self::param(field, message).code(Code::ContextLengthExceeded)
    }

    /// As [`Self::too_long`], for a text of `bytes`, which has at least `least` tokens.
    pub fn surely_too_long(field: &str, bytes: usize, least: usize, positions: u32) -> Self {
        let part = match field {
            "messages" => "messages",
            _ => "prompt",
        };
        let message = format!(
            "This model's maximum context length is {positions} tokens. However, the {part} has \
             {bytes} bytes, which are at least {least} tokens. Please reduce the length of the \
             {part}."
        );
        Self::param(field, message).code(Code::ContextLengthExceeded)
    }

    /// The gateway is shutting down.
    pub fn ending() -> Self {
        let message = "The server is shutting down. Try again later.";
        Self::unavailable(Code::ShuttingDown, message, 5)
    }

    /// The key of a running request was removed from the key file.
    pub fn revoked() -> Self {
        let message = "The API key is no longer known here.";
        let status = StatusCode::UNAUTHORIZED;
        Self::new(status, "invalid_request_error", message).code(Code::InvalidApiKey)
    }

    /// The error for a request of `max_tokens` tokens that the engine refused.
    pub fn refused(refused: Refused, field: &str, max_tokens: u32) -> Self {
        match refused {
            Refused::Overloaded { waiting } => Self::unavailable(
                Code::Overloaded,
                format!("The pool is overloaded: {waiting} requests wait. Try again later."),
                5,
            ),
            Refused::NotReady(what) => Self::not_ready(&what),
            Refused::TooLong { prompt, positions } => {
                Self::too_long(field, prompt, max_tokens, positions)
            }
            Refused::UnknownAdapter => Self {
                param: Some("model".to_string()),
                ..Self::not_found("The adapter is no longer loaded.").code(Code::ModelNotFound)
            },
            Refused::Other(reason) => Self::server(reason),
        }
    }

    /// No pipeline is ready.
    pub fn not_ready(what: &str) -> Self {
        let message = format!("The model is not ready: {what}. Try again later.");
        Self::unavailable(Code::NotReady, message, 5)
    }

    /// OpenAI's error object.
    pub fn body(&self) -> Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code.map(Code::as_str),
            }
        })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Some(Code::ShuttingDown) {
            let close = HeaderValue::from_static("close");
            headers.insert(header::CONNECTION, close);
        }
        // OpenAI's clients retry after any 5xx unless they are told not to.
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}
