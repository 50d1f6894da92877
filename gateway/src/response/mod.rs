//! Responses in OpenAI's forms, whole or as streams of chunks.

mod chat;
mod completion;
mod logprobs;
mod sse;

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use concord_proto::serving::Usage;
use serde_json::{Value, json};

use crate::answer::{Answer, AnswerEvent};
use crate::api_error::ApiError;
use crate::following::Following;
use crate::prepare::Head;

pub(crate) use chat::ChatForm;
pub(crate) use completion::CompletionForm;
pub(crate) use sse::stream;

/// A form of responses. It gets all events except notes and failures.
pub(crate) trait Form: Send + 'static {
    /// The fields that are the same in all chunks.
    fn head(&self) -> &Head;

    /// The chunks that a stream sends for an event, without `usage`.
    fn chunks(&mut self, event: AnswerEvent) -> Vec<Value>;

    /// The last chunk of a stream whose usage was asked for, without the usage.
    fn usage_chunk(&self) -> Value;

    /// Keeps an event for [`Form::whole`].
    fn keep(&mut self, event: AnswerEvent);

    /// The whole response, without `usage`.
    fn whole(self) -> Value;
}

/// The response in one piece.
///
/// # Errors
/// The failure of the answer.
pub(crate) async fn whole<F: Form>(
    mut answer: Answer,
    mut form: F,
    mut following: Following,
) -> Result<Response, ApiError> {
    while let Some(event) = following.next(&mut answer).await {
        match event {
            AnswerEvent::Note(_) => {}
            AnswerEvent::Failed(error) => return Err(error),
            event => form.keep(event),
        }
    }
    let id = form.head().id.clone();
    let mut body = form.whole();
    body["usage"] = usage(answer.usage());
    let mut response = Json(body).into_response();
    name(&mut response, &id);
    Ok(response)
}

/// Sets the name of the answer in the response's header, so that its receipts can be found.
pub(crate) fn name(response: &mut Response, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-request-id", id);
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answer,
        "total_tokens": u64::from(usage.prompt) + u64::from(usage.answer),
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    })
}

/// The fields that all responses have.
fn shell(head: &Head, object: &str) -> Value {
    json!({
        "id": head.id,
        "object": object,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
        "choices": [],
    })
}
