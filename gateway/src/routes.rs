//! Which handler has which path, and what all responses have in common.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::{
    adapters, embeddings, generate, ids, metrics, models, page, pool, receipts, tokenization,
};

type Shared = State<Arc<Gateway>>;

/// What needs no key: the page asks for one, and probes have none.
const OPEN: [&str; 5] = ["/", "/page.js", "/page.css", "/health", "/ready"];

/// All paths.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let shared = gateway.clone();
    Router::new()
        .route("/v1/chat/completions", post(generate::chat))
        .route("/v1/completions", post(generate::completion))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/receipts/{id}", get(receipts::receipts))
        .route("/v1/load_lora_adapter", post(adapters::load))
        .route("/v1/unload_lora_adapter", post(adapters::unload))
        .route("/tokenize", post(tokenization::tokenize))
        .route("/detokenize", post(tokenization::detokenize))
        .route("/health", get(ready))
        .route("/ready", get(ready))
        .route("/metrics", get(figures))
        .route("/api/pool", get(pool_state))
        .route("/", get(page::index))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(shared, around))
        .with_state(gateway)
}

/// Around every request: who may ask at all, and the headers of the response.
async fn around(State(gateway): Shared, mut request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS && gateway.cors.is_some();
    let mut response = match enter(&gateway, &mut request) {
        _ if preflight => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    if !headers.contains_key("x-request-id")
        && let Ok(id) = ids::fresh("req-")
        && let Ok(id) = HeaderValue::from_str(&id)
    {
        headers.insert("x-request-id", id);
    }
    if let Some(origin) = &gateway.cors {
        allow_origin(headers, origin, preflight);
    }
    response
}

/// Lets a request in, with its account for the handler.
fn enter(gateway: &Gateway, request: &mut Request) -> Result<(), ApiError> {
    gateway.check_host(request.headers())?;
    if !OPEN.contains(&request.uri().path()) {
        let account = gateway.keys.account(request.headers())?;
        request.extensions_mut().insert(account);
    }
    Ok(())
}

fn allow_origin(headers: &mut HeaderMap, origin: &HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let exposed = HeaderValue::from_static("x-request-id, retry-after");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    if preflight {
        let methods = HeaderValue::from_static("GET, POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        // A wildcard would leave out `authorization`.
        let allowed = HeaderValue::from_static(
            "authorization, content-type, openai-organization, openai-project, x-stainless-arch, \
             x-stainless-helper-method, x-stainless-lang, x-stainless-os, \
             x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, \
             x-stainless-runtime-version, x-stainless-timeout",
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        let age = HeaderValue::from_static("600");
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, age);
    }
}

async fn no_path(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!("There is nothing at '{path}'."))
}

async fn no_method(request: Request) -> ApiError {
    let message = format!("'{}' is not for this path.", request.method());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError::new(status, "invalid_request_error", message)
}

/// `/health` and `/ready`: the pool takes requests. Clients of other servers know the first name.
async fn ready(State(gateway): Shared) -> Result<StatusCode, ApiError> {
    let view = gateway.engine.view();
    match view.ready {
        true => Ok(StatusCode::OK),
        false => Err(ApiError::not_ready(&view.state)),
    }
}

async fn figures(State(gateway): Shared) -> Response {
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    ([(header::CONTENT_TYPE, kind)], gateway.metrics.text()).into_response()
}

async fn pool_state(State(gateway): Shared) -> Json<Value> {
    Json(pool::to_json(&gateway.engine.view(), &gateway.served.name))
}
