//! A request, from its header to the last byte of its response: one line in the access log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Method, Uri};
use axum::response::Response;
use concord_proto::serving::Usage;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::keys::{RequestRecord, now};
use crate::phase::Counted;

/// Most characters of a path in the log.
const PATH_MAX: usize = 200;

/// The status in the log if the client left before the end, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A running request. Its line is written when the last reference is dropped: then the response was
/// sent, and the work for it has stopped.
pub(crate) struct Visit {
    gateway: Arc<Gateway>,
    started: Instant,
    method: Method,
    path: String,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    id: String,
    /// The name of the answer, by which its receipt is found.
    answer: Option<String>,
    /// The name of the key, never the key.
    key: Option<String>,
    status: u16,
    /// The model or the adapter that the request named.
    model: Option<String>,
    usage: Usage,
    first: Option<Duration>,
    is_whole: bool,
    /// Held from the admission of the request; a draining gateway waits for it.
    counted: Option<Counted>,
}

impl Visit {
    /// Begins the visit of a request.
    pub fn begin(gateway: Arc<Gateway>, method: &Method, uri: &Uri, id: String) -> Arc<Self> {
        let notes = Notes {
            id,
            ..Notes::default()
        };
        Arc::new(Self {
            started: Instant::now(),
            method: method.clone(),
            // Without the query, which may contain secrets.
            path: uri.path().chars().take(PATH_MAX).collect(),
            notes: Mutex::new(notes),
            gateway,
        })
    }

    /// Records the name of its key.
    pub fn by(&self, key: &str) {
        self.notes().key = Some(key.to_string());
    }

    /// Records that it is admitted.
    pub fn enters(&self, counted: Counted) {
        self.notes().counted = Some(counted);
    }

    /// Records the time of the first part of the answer.
    pub fn answers(&self) {
        let elapsed = self.started.elapsed();
        self.notes().first.get_or_insert(elapsed);
    }

    /// Records the response and the name of its answer. Returns the response with a body that ends
    /// the visit.
    pub fn respond(
        self: Arc<Self>,
        response: Response,
        id: &str,
        answer: Option<String>,
    ) -> Response {
        {
            let mut notes = self.notes();
            notes.id = id.to_string();
            notes.answer = answer;
            notes.status = response.status().as_u16();
            // A response to HEAD has no body that could be read to its end.
            notes.is_whole = self.method == Method::HEAD;
        }
        response.map(|body| Body::new(Told { body, visit: self }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, notes: &Notes, status: u16) -> Value {
        json!({
            "time": now().as_millis() as f64 / 1e3,
            "id": notes.id,
            "answer": notes.answer,
            "key": notes.key,
            "model": notes.model,
            "method": self.method.as_str(),
            "path": self.path,
            "status": status,
            "prompt_tokens": notes.usage.prompt,
            "answer_tokens": notes.usage.answer,
            "seconds": self.started.elapsed().as_secs_f64(),
            "first_seconds": notes.first.map(|first| first.as_secs_f64()),
        })
    }
}

impl RequestRecord for Visit {
    fn asks(&self, model: &str) {
        self.notes().model = Some(model.to_string());
    }

    fn used(&self, usage: &Usage) {
        self.notes().usage = *usage;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let notes = self.notes();
        let status = match notes.is_whole {
            true => notes.status,
            false => CLIENT_LEFT,
        };
        let key = notes.key.as_deref();
        self.gateway.metrics.visited(key, status, &notes.usage);
        tracing::info!(
            target: "concord_gateway::access",
            id = notes.id,
            answer = notes.answer,
            key,
            model = notes.model,
            method = self.method.as_str(),
            path = self.path,
            status,
            prompt_tokens = notes.usage.prompt,
            answer_tokens = notes.usage.answer,
            seconds = self.started.elapsed().as_secs_f64(),
            first_seconds = notes.first.map(|first| first.as_secs_f64()),
        );
        if let Some(log) = &self.gateway.access_log {
            let lost = log.write(self.line(&notes, status).to_string());
            self.gateway.metrics.lines_lost(lost);
        }
    }
}

/// The body of a response, which records in the visit when it was completely sent.
struct Told {
    body: Body,
    visit: Arc<Visit>,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None) = frame {
            self.visit.notes().is_whole = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // A body of known length is not polled after its last byte.
        if self.body.is_end_stream() {
            self.visit.notes().is_whole = true;
        }
    }
}
