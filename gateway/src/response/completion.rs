//! Responses of `/v1/completions`.

use std::sync::Arc;

use concord_proto::serving::TokenLogprob;
use concord_text::TextTokenizer;
use serde_json::{Value, json};

use super::logprobs::{Cursor, Lists};
use super::{Form, shell};
use crate::answer::{AnswerEvent, Piece};
use crate::prepare::{Echo, Head};

/// The form of `/v1/completions`.
pub(crate) struct CompletionForm {
    head: Head,
    tokenizer: Arc<TextTokenizer>,
    wants_logprobs: bool,
    choices: Vec<Text>,
}

/// A choice. In a stream, only the state on which later chunks depend; otherwise all of it.
#[derive(Default)]
struct Text {
    /// The prompt, until it was sent.
    echo: Option<Echo>,
    has_begun: bool,
    at: Cursor,
    text: String,
    lists: Lists,
    reason: Option<&'static str>,
}

impl CompletionForm {
    /// A form of `choices` choices, `of_prompt` for each prompt.
    pub fn new(
        head: Head,
        tokenizer: Arc<TextTokenizer>,
        wants_logprobs: bool,
        choices: usize,
        of_prompt: usize,
        echoes: &[Echo],
    ) -> Self {
        let text = |index: usize| Text {
            echo: echoes.get(index / of_prompt).cloned(),
            ..Text::default()
        };
        Self {
            head,
            tokenizer,
            wants_logprobs,
            choices: (0..choices).map(text).collect(),
        }
    }

    /// The text of a prompt that was not sent yet, with its logprobs as far as they are known.
    fn echo(&mut self, index: usize, scored: &[TokenLogprob]) -> Option<(String, Lists)> {
        let choice = &mut self.choices[index];
        let echo = choice.echo.take()?;
        let mut lists = Lists::default();
        if let (true, Some(first)) = (self.wants_logprobs, echo.tokens.first()) {
            choice.at = Cursor::new(&self.tokenizer, &echo.tokens, &echo.text);
            lists.first(&self.tokenizer, *first, &mut choice.at);
            for token in scored {
                lists.push(&self.tokenizer, token, &mut choice.at);
            }
        }
        Some((echo.text, lists))
    }

    fn lists(&mut self, index: usize, piece: &Piece) -> Lists {
        let mut lists = Lists::default();
        let at = &mut self.choices[index].at;
        for token in &piece.logprobs {
            lists.push(&self.tokenizer, token, at);
        }
        lists
    }

    /// Text and logprobs of an event, and why its choice ended.
    fn read(&mut self, event: AnswerEvent) -> Option<(usize, String, Lists, Option<&'static str>)> {
        let (index, piece, reason) = match event {
            AnswerEvent::Prompt(index, scored) => {
                let (text, lists) = self.echo(index, &scored)?;
                return Some((index, text, lists, None));
            }
            AnswerEvent::Piece(index, piece) => (index, piece, None),
            AnswerEvent::Ended(index, piece, reason) => (index, piece, Some(reason)),
            AnswerEvent::Note(_) | AnswerEvent::Failed(_) => return None,
        };
        let (mut text, mut lists) = self.echo(index, &[]).unwrap_or_default();
        lists.extend(self.lists(index, &piece));
        text.push_str(&piece.content);
        Some((index, text, lists, reason))
    }
}

impl Form for CompletionForm {
    fn head(&self) -> &Head {
        &self.head
    }

    fn chunks(&mut self, event: AnswerEvent) -> Vec<Value> {
        let Some((index, text, lists, reason)) = self.read(event) else {
            return Vec::new();
        };
        let mut chunk = shell(&self.head, "text_completion");
        chunk["choices"] = json!([{
            "index": index,
            "text": text,
            "logprobs": if self.wants_logprobs { lists.value() } else { Value::Null },
            "finish_reason": reason,
        }]);
        if !std::mem::replace(&mut self.choices[index].has_begun, true) {
            chunk["seed"] = json!(self.head.seed);
        }
        vec![chunk]
    }

    fn usage_chunk(&self) -> Value {
        shell(&self.head, "text_completion")
    }

    fn keep(&mut self, event: AnswerEvent) {
        if let Some((index, text, lists, reason)) = self.read(event) {
            let choice = &mut self.choices[index];
            choice.text.push_str(&text);
            choice.lists.extend(lists);
            choice.reason = choice.reason.or(reason);
        }
    }

    fn whole(self) -> Value {
        let mut body = shell(&self.head, "text_completion");
        let wants_logprobs = self.wants_logprobs;
        let choice = |(index, choice): (usize, Text)| {
            json!({
                "index": index,
                "text": choice.text,
                "logprobs": if wants_logprobs { choice.lists.value() } else { Value::Null },
                "finish_reason": choice.reason,
            })
        };
        body["choices"] = self.choices.into_iter().enumerate().map(choice).collect();
        body["seed"] = json!(self.head.seed);
        body
    }
}
