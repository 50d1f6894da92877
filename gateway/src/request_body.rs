//! The bytes of a request.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use crate::api_error::ApiError;
use crate::options::Limits;

/// The whole body, which has to be JSON, small enough, and here in time.
///
/// # Errors
/// 408, 413, 415, or a 400 where the connection broke.
pub(crate) async fn read(request: Request, limits: &Limits) -> Result<Bytes, ApiError> {
    // A page of another origin cannot send this type unless CORS lets it.
    if !is_json(request.headers()) {
        let message = "The body has to be JSON: send the header 'Content-Type: application/json'.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "invalid_request_error", message));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limits.body_bytes as u64) {
        return Err(too_large(limits));
    }
    let body = Limited::new(request.into_body(), limits.body_bytes);
    match timeout(limits.body_time, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limits)),
        Ok(Err(error)) => {
            let message = format!("The body cannot be read: {error}.");
            Err(ApiError::invalid(message))
        }
        Err(_) => {
            let seconds = limits.body_time.as_secs();
            let message = format!("The body did not come within {seconds} seconds.");
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(ApiError::new(status, "invalid_request_error", message))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn too_large(limits: &Limits) -> ApiError {
    let message = format!("The body is larger than {} bytes.", limits.body_bytes);
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    ApiError::new(status, "invalid_request_error", message)
}
