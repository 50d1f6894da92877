//! The body of a request.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::KeyAccount;
use crate::options::Limits;
use crate::readers::Room;

/// A body, and the memory that is reserved for it while this is held.
pub(crate) struct RequestBody {
    pub bytes: Bytes,
    _room: Room,
}

/// Reads the whole body, which has to be JSON, small enough, and received in time.
///
/// # Errors
/// 408, 413, 415, 503, or a 400 where the connection broke.
pub(crate) async fn read(
    gateway: &Gateway,
    account: &KeyAccount,
    request: Request,
) -> Result<RequestBody, ApiError> {
    let limits = &gateway.options.limits;
    // A page of another origin cannot send this type unless CORS allows it.
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
    let body = collect(gateway, account, request.into_body());
    match timeout(limits.body_time, body).await {
        Ok(read) => read,
        Err(_) => {
            let seconds = limits.body_time.as_secs();
            let message = format!("The body did not come within {seconds} seconds.");
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(ApiError::new(status, "invalid_request_error", message))
        }
    }
}

/// Reserves memory as bytes arrive, so that a client that announces many bytes and sends few holds
/// little.
async fn collect(
    gateway: &Gateway,
    account: &KeyAccount,
    mut body: Body,
) -> Result<RequestBody, ApiError> {
    let limits = &gateway.options.limits;
    let (mut bytes, mut room) = (Vec::new(), Room::default());
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::invalid(format!("The body cannot be read: {error}.")))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if bytes.len() + data.len() > limits.body_bytes {
            return Err(too_large(limits));
        }
        let share = &account.state.share;
        gateway.readers.make_room(share, &mut room, data.len())?;
        bytes.extend_from_slice(data);
    }
    Ok(RequestBody {
        bytes: bytes.into(),
        _room: room,
    })
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
