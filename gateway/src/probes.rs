//! Handlers for monitoring: readiness, metrics, and the state of the pool.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;

use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::KeyAccount;
use crate::metrics;
use crate::pool;

/// `/health` and `/ready`: whether the pool takes requests. Clients of other servers use the first
/// name.
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<StatusCode, ApiError> {
    let view = gateway.engine.view();
    match view.ready {
        true => Ok(StatusCode::OK),
        false => Err(ApiError::not_ready(&view.state)),
    }
}

/// `/metrics`: admins see the metrics of all keys, others only those of their own.
pub(crate) async fn figures(
    State(gateway): State<Arc<Gateway>>,
    account: Option<Extension<Arc<KeyAccount>>>,
) -> Response {
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    let text = gateway.metrics.text();
    let text = match account {
        Some(Extension(account)) if account.line.admin => text,
        other => {
            let own = other.map(|Extension(account)| account.line.name.clone());
            metrics::without_other_keys(&text, own.as_deref())
        }
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// `/api/pool`
pub(crate) async fn pool(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(pool::to_json(&gateway.engine.view(), &gateway.served.name))
}
