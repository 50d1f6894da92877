//! A request, from its header to the last byte of its response: one line in the log of accesses.

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

/// Characters of a path that the log shows.
const PATH_MAX: usize = 200;

/// The status in the log of a request whose client left before the end, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A request under way. When the last reference to it is dropped, the response has gone out and
/// what made it has stopped: then its line is written.
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
    /// The model, or the adapter, that was asked.
    model: Option<String>,
    usage: Usage,
    first: Option<Duration>,
    is_whole: bool,
    /// Held from when the request was let in; those that are refused hold nobody up.
    counted: Option<Counted>,
}

impl Visit {
    /// A request begins.
    pub fn begin(gateway: Arc<Gateway>, method: &Method, uri: &Uri, id: String) -> Arc<Self> {
        let notes = Notes {
            id,
            ..Notes::default()
        };
        Arc::new(Self {
            started: Instant::now(),
            method: method.clone(),
            // Without the query, where people put what no log should have.
            path: uri.path().chars().take(PATH_MAX).collect(),
            notes: Mutex::new(notes),
            gateway,
        })
    }

    /// The name of its key.
    pub fn by(&self, key: &str) {
        self.notes().key = Some(key.to_string());
    }

    /// It is let in.
    pub fn enters(&self, counted: Counted) {
        self.notes().counted = Some(counted);
    }

    /// Some of the answer is there.
    pub fn answers(&self) {
        let elapsed = self.started.elapsed();
        self.notes().first.get_or_insert(elapsed);
    }

    /// The response, by its name and that of the answer in it, whose body ends the visit.
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
            // Its response has no body to be read to the end.
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

/// The body of a response, which notes in the visit when it has gone out.
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
        // A body of known length is not asked for what comes after its end.
        if self.body.is_end_stream() {
            self.visit.notes().is_whole = true;
        }
    }
}
