//! The routes of the API, and what all responses have in common.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::paths::{self, Access, ApiPath, PATHS};
use crate::phase::DrainPhase;
use crate::visit::Visit;
use crate::{ids, ignored};

type Shared = State<Arc<Gateway>>;

/// The header with the name of a request, in requests and responses.
const REQUEST_ID: &str = "x-request-id";

/// The router for all paths.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let shared = gateway.clone();
    let add = |router: Router<Arc<Gateway>>, api_path: &ApiPath| {
        router.route(api_path.path, (api_path.handler)())
    };
    PATHS
        .iter()
        .fold(Router::new(), add)
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(shared, around))
        .with_state(gateway)
}

/// Wraps every request: admission, the headers of the response, and the access log.
async fn around(State(gateway): Shared, request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS && gateway.cors.is_some();
    let named = request.headers().get(REQUEST_ID);
    let named = named.and_then(|id| ids::given(id.to_str().ok()?));
    let named = named.map(str::to_string);
    // Without random numbers no request can be answered; the handlers report that.
    let id = named
        .clone()
        .unwrap_or_else(|| ids::fresh("req-").unwrap_or_default());
    let visit = Visit::begin(gateway.clone(), request.method(), request.uri(), id.clone());
    // At the level of errors, so that it is never filtered out and every log line has the id.
    let span = tracing::error_span!("request", id);
    let inner = inside(gateway.clone(), visit.clone(), request, next, preflight);
    let mut response = inner.instrument(span).await;
    let headers = response.headers_mut();
    let answer = headers.get(REQUEST_ID);
    let answer = answer.and_then(|id| Some(id.to_str().ok()?.to_string()));
    // Without a name of the client, the header has the answer's name, by which its receipt is
    // found. With one, the answer's name is only in the body.
    if (named.is_some() || !headers.contains_key(REQUEST_ID))
        && let Ok(id) = HeaderValue::from_str(&id)
    {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(origin) = &gateway.cors {
        allow_origin(headers, origin, preflight);
    }
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default().to_string();
    visit.respond(response, &id, answer)
}

async fn inside(
    gateway: Arc<Gateway>,
    visit: Arc<Visit>,
    mut request: Request,
    next: Next,
    preflight: bool,
) -> Response {
    match enter(&gateway, visit, &mut request) {
        _ if preflight => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
        Ok(()) => next.run(request).await,
    }
}

/// Admits a request, and attaches its account and its visit for the handler.
fn enter(gateway: &Gateway, visit: Arc<Visit>, request: &mut Request) -> Result<(), ApiError> {
    let path = request.uri().path();
    let api_path = paths::find(path);
    // Counted before the phase is checked, so that a draining gateway waits for every request that
    // it has admitted.
    let counted = gateway
        .under_way
        .begin(api_path.is_some_and(|api_path| api_path.is_answer));
    if *gateway.phase.borrow() != DrainPhase::Open && path != "/metrics" {
        return Err(ApiError::ending());
    }
    gateway.check_host(request.headers())?;
    if api_path.is_none_or(|api_path| api_path.access != Access::Open) {
        let account = gateway.keys.account(request.headers())?;
        visit.by(&account.line.name);
        request.extensions_mut().insert(account);
    }
    visit.enters(counted);
    request.extensions_mut().insert(visit);
    Ok(())
}

fn allow_origin(headers: &mut HeaderMap, origin: &HeaderValue, preflight: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let exposed = format!("{REQUEST_ID}, retry-after, {}", ignored::HEADER);
    if let Ok(exposed) = HeaderValue::from_str(&exposed) {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    if preflight {
        let methods = HeaderValue::from_static("GET, POST");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        // A wildcard would not cover `authorization`.
        let allowed = HeaderValue::from_static(
            "authorization, content-type, openai-organization, openai-project, x-stainless-arch, \
             x-stainless-helper-method, x-stainless-lang, x-stainless-os, \
             x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, \
             x-stainless-runtime-version, x-stainless-timeout, x-request-id",
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
