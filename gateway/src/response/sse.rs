//! Streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::{Form, name, usage};
use crate::answer::{Answer, AnswerEvent};
use crate::following::Following;
use crate::options::Limits;

/// Events that may wait for a client; when there are more, the answer waits.
const EVENTS_MAX: usize = 256;

/// The response as a stream. If the client leaves, or reads nothing for too long, the answer is
/// cancelled.
pub(crate) fn stream<F: Form>(
    answer: Answer,
    form: F,
    include_usage: bool,
    following: Following,
    limits: &Limits,
) -> Response {
    let id = form.head().id.clone();
    let (events, sent) = mpsc::channel::<Bytes>(EVENTS_MAX);
    let line = Line {
        events,
        write_time: limits.write_time,
    };
    let answering = EngineAnswer { answer, following };
    let run = run(answering, form, include_usage, line, limits.keep_alive);
    // The span keeps the request's id in the log.
    tokio::spawn(run.in_current_span());
    let body = Body::from_stream(ReceiverStream::new(sent).map(Ok::<_, Infallible>));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let fields = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (field, value) in fields {
        headers.insert(field, HeaderValue::from_static(value));
    }
    // Keeps proxies such as nginx from buffering chunks.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    name(&mut response, &id);
    response
}

/// An answer, and what may end it early.
struct EngineAnswer {
    answer: Answer,
    following: Following,
}

async fn run<F: Form>(
    answering: EngineAnswer,
    mut form: F,
    include_usage: bool,
    line: Line,
    keep_alive: Duration,
) {
    let EngineAnswer {
        mut answer,
        mut following,
    } = answering;
    loop {
        let event = tokio::select! {
            event = timeout(keep_alive, following.next(&mut answer)) => event,
            () = line.events.closed() => return,
        };
        let sent = match event {
            Err(_) => line.comment("still here").await,
            Ok(None) => break,
            Ok(Some(AnswerEvent::Note(note))) => line.comment(&note).await,
            Ok(Some(AnswerEvent::Failed(error))) => {
                let mut body = error.body();
                body["usage"] = usage(answer.usage());
                if line.data(&body).await.is_ok() {
                    // The client may be gone by now.
                    let _ = line.send("data: [DONE]\n\n".to_string()).await;
                }
                return;
            }
            Ok(Some(event)) => chunks(&mut form, event, include_usage, &line).await,
        };
        if sent.is_err() {
            return;
        }
    }
    if include_usage {
        let mut chunk = form.usage_chunk();
        chunk["usage"] = usage(answer.usage());
        if line.data(&chunk).await.is_err() {
            return;
        }
    }
    // The client may be gone by now.
    let _ = line.send("data: [DONE]\n\n".to_string()).await;
}

async fn chunks<F: Form>(
    form: &mut F,
    event: AnswerEvent,
    include_usage: bool,
    line: &Line,
) -> Result<(), Gone> {
    for mut chunk in form.chunks(event) {
        if include_usage {
            chunk["usage"] = json!(null);
        }
        line.data(&chunk).await?;
    }
    Ok(())
}

/// The client has left, or reads nothing.
struct Gone;

/// The channel to a client.
struct Line {
    events: mpsc::Sender<Bytes>,
    write_time: Duration,
}

impl Line {
    async fn data(&self, value: &Value) -> Result<(), Gone> {
        self.send(format!("data: {value}\n\n")).await
    }

    /// Sends a comment, which clients skip.
    async fn comment(&self, text: &str) -> Result<(), Gone> {
        self.send(format!(": {text}\n\n")).await
    }

    async fn send(&self, text: String) -> Result<(), Gone> {
        match timeout(self.write_time, self.events.send(text.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
