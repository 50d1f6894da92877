//! Responses of `/v1/chat/completions`.

use std::sync::Arc;

use concord_proto::{Digest, Domain};
use concord_text::{CallEvent, TextTokenizer};
use serde_json::{Map, Value, json};

use super::{Form, logprobs, shell};
use crate::answer::{AnswerEvent, Piece};
use crate::prepare::Head;

/// The form of `/v1/chat/completions`.
pub(crate) struct ChatForm {
    head: Head,
    tokenizer: Arc<TextTokenizer>,
    wants_logprobs: bool,
    choices: Vec<Message>,
}

/// A choice. In a stream, only the state on which later chunks depend; otherwise all of it.
#[derive(Default)]
struct Message {
    has_begun: bool,
    reasoning: String,
    content: String,
    calls: Vec<Call>,
    logprobs: Vec<Value>,
    reason: Option<&'static str>,
}

struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl ChatForm {
    /// A form of `choices` choices.
    pub fn new(
        head: Head,
        tokenizer: Arc<TextTokenizer>,
        wants_logprobs: bool,
        choices: usize,
    ) -> Self {
        Self {
            head,
            tokenizer,
            wants_logprobs,
            choices: (0..choices).map(|_| Message::default()).collect(),
        }
    }

    fn logprobs(&self, piece: &Piece) -> Vec<Value> {
        let tokens = piece.logprobs.iter();
        tokens
            .map(|token| logprobs::chat(&self.tokenizer, token))
            .collect()
    }

    fn call_id(&self, choice: usize, call: u32) -> String {
        call_id(&self.head.id, choice, call)
    }

    fn chunk(&self, index: usize, delta: Value, piece: &Piece, reason: Option<&str>) -> Value {
        let mut chunk = shell(&self.head, "chat.completion.chunk");
        let logprobs = match self.wants_logprobs && !piece.logprobs.is_empty() {
            true => json!({"content": self.logprobs(piece), "refusal": null}),
            false => Value::Null,
        };
        chunk["choices"] = json!([{
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": reason,
        }]);
        chunk
    }

    /// The chunk for a piece, if there is anything in it.
    fn piece(&mut self, index: usize, piece: &Piece) -> Option<Value> {
        let is_first = !std::mem::replace(&mut self.choices[index].has_begun, true);
        if piece.is_empty() && !is_first {
            return None;
        }
        let mut delta = Map::new();
        if is_first {
            delta.insert("role".to_string(), json!("assistant"));
        }
        if !piece.reasoning.is_empty() {
            delta.insert("reasoning_content".to_string(), json!(piece.reasoning));
        }
        let only_others = !piece.reasoning.is_empty() || !piece.calls.is_empty();
        if !piece.content.is_empty() || !only_others {
            delta.insert("content".to_string(), json!(piece.content));
        }
        if !piece.calls.is_empty() {
            let calls = piece.calls.iter().filter_map(|event| match event {
                CallEvent::Text(_) => None,
                CallEvent::Started { index: call, name } => Some(json!({
                    "index": call,
                    "id": self.call_id(index, *call),
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                })),
                CallEvent::Arguments { index, piece } => Some(json!({
                    "index": index,
                    "function": {"arguments": piece},
                })),
            });
            delta.insert("tool_calls".to_string(), calls.collect());
        }
        let mut chunk = self.chunk(index, Value::Object(delta), piece, None);
        if is_first {
            chunk["seed"] = json!(self.head.seed);
        }
        Some(chunk)
    }

    fn add(&mut self, index: usize, piece: Piece) {
        let entries = self.logprobs(&piece);
        let id = self.head.id.clone();
        let message = &mut self.choices[index];
        message.logprobs.extend(entries);
        message.reasoning.push_str(&piece.reasoning);
        message.content.push_str(&piece.content);
        for event in piece.calls {
            match event {
                CallEvent::Text(text) => message.content.push_str(&text),
                CallEvent::Started { index: call, name } => message.calls.push(Call {
                    id: call_id(&id, index, call),
                    name,
                    arguments: String::new(),
                }),
                CallEvent::Arguments { index: call, piece } => {
                    if let Some(call) = message.calls.get_mut(call as usize) {
                        call.arguments.push_str(&piece);
                    }
                }
            }
        }
    }
}

impl Form for ChatForm {
    fn head(&self) -> &Head {
        &self.head
    }

    fn chunks(&mut self, event: AnswerEvent) -> Vec<Value> {
        match event {
            AnswerEvent::Piece(index, piece) => self.piece(index, &piece).into_iter().collect(),
            AnswerEvent::Ended(index, piece, reason) => {
                let last = self.piece(index, &piece);
                let end = self.chunk(index, json!({}), &Piece::default(), Some(reason));
                last.into_iter().chain([end]).collect()
            }
            AnswerEvent::Prompt(..) | AnswerEvent::Note(_) | AnswerEvent::Failed(_) => Vec::new(),
        }
    }

    fn usage_chunk(&self) -> Value {
        shell(&self.head, "chat.completion.chunk")
    }

    fn keep(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Piece(index, piece) => self.add(index, piece),
            AnswerEvent::Ended(index, piece, reason) => {
                self.add(index, piece);
                self.choices[index].reason = Some(reason);
            }
            AnswerEvent::Prompt(..) | AnswerEvent::Note(_) | AnswerEvent::Failed(_) => {}
        }
    }

    fn whole(self) -> Value {
        let mut body = shell(&self.head, "chat.completion");
        let wants_logprobs = self.wants_logprobs;
        let choices = self.choices.into_iter().enumerate();
        let choices = choices.map(|(index, message)| message.value(index, wants_logprobs));
        body["choices"] = choices.collect();
        body["seed"] = json!(self.head.seed);
        body
    }
}

impl Message {
    fn value(self, index: usize, wants_logprobs: bool) -> Value {
        let mut message = json!({"role": "assistant", "content": self.content, "refusal": null});
        if !self.calls.is_empty() {
            if self.content.is_empty() {
                message["content"] = Value::Null;
            }
            let call = |call: Call| {
                json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            };
            message["tool_calls"] = self.calls.into_iter().map(call).collect();
        }
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        let logprobs = match wants_logprobs {
            true => json!({"content": self.logprobs, "refusal": null}),
            false => Value::Null,
        };
        json!({
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.reason,
        })
    }
}

/// An id of nine letters and digits, because some templates accept no other.
fn call_id(id: &str, choice: usize, call: u32) -> String {
    let name = format!("{id}-{choice}-{call}");
    let digest = Digest::of(Domain::Text, name.as_bytes());
    digest.to_string()[..9].to_string()
}
