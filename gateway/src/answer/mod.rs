//! The answer to a request: its generations, and the events that they cause.

mod choice;

use std::sync::Arc;
use std::time::Instant;

use concord_proto::serving::{Control, Generation, TokenLogprob, Update, Usage};
use concord_text::TextError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt, StreamMap};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::gateway::Gateway;
use crate::keys::Permit;

pub(crate) use choice::{Choice, Piece, Reading};

/// An event for the client, with the index of the choice.
pub(crate) enum AnswerEvent {
    /// Logprobs of the prompt's tokens but the first.
    Prompt(usize, Vec<TokenLogprob>),
    /// More of an answer.
    Piece(usize, Piece),
    /// The last piece of an answer, and why it ended.
    Ended(usize, Piece, &'static str),
    /// A comment for people who watch the stream.
    Note(String),
    /// The request cannot be answered. The last event.
    Failed(ApiError),
}

/// A choice that is not yet submitted to the engine.
pub(crate) struct PlannedChoice {
    pub generation: Generation,
    pub choice: Choice,
}

/// An answer in progress. Dropping it cancels its generations.
pub(crate) struct Answer {
    gateway: Arc<Gateway>,
    permit: Permit,
    started: Instant,
    running: Vec<Running>,
    updates: StreamMap<usize, ReceiverStream<Update>>,
    /// Choices for each prompt, which share its tokens.
    choices: usize,
    has_failed: bool,
}

struct Running {
    choice: Choice,
    control: mpsc::Sender<Control>,
    prompt: u32,
    /// The tokens so far, until the engine reports the final numbers.
    usage: Usage,
    last: Option<Instant>,
    has_ended: bool,
}

impl Answer {
    /// Submits all generations to the engine. `field` is the request's field with the prompt, for
    /// errors; `choices` is the number of choices for each prompt.
    ///
    /// # Errors
    /// The first refusal; the others are cancelled.
    pub fn begin(
        gateway: Arc<Gateway>,
        planned: Vec<PlannedChoice>,
        choices: usize,
        field: &str,
        permit: Permit,
    ) -> Result<Self, ApiError> {
        let mut answer = Self {
            gateway,
            permit,
            started: Instant::now(),
            running: Vec::with_capacity(planned.len()),
            updates: StreamMap::with_capacity(planned.len()),
            choices,
            has_failed: false,
        };
        for planned in planned {
            if let Err(error) = answer.submit(planned, field) {
                // Generations that never ran use no tokens of the key.
                answer.running.clear();
                return Err(error);
            }
        }
        Ok(answer)
    }

    fn submit(&mut self, planned: PlannedChoice, field: &str) -> Result<(), ApiError> {
        let max_tokens = planned.generation.spec.max_tokens;
        let prompt = planned.generation.spec.prompt.len() as u32;
        let mut choice = planned.choice;
        let first = choice.begin().map_err(|error| broken(&error))?;
        let answering = self.gateway.engine.submit(planned.generation);
        let answering =
            answering.map_err(|refused| ApiError::refused(refused, field, max_tokens))?;
        let index = self.running.len();
        self.running.push(Running {
            choice,
            control: answering.control,
            prompt,
            usage: Usage::default(),
            last: None,
            has_ended: false,
        });
        let updates = ReceiverStream::new(answering.updates);
        self.updates.insert(index, updates);
        self.tell(index, first)
    }

    /// The number of choices for all prompts.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// The next event; `None` once all choices have ended, or one has failed. The future may be
    /// dropped and called again without losing an event.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        // An engine may keep its channels open after its last update.
        while !self.has_failed && !self.running.iter().all(|running| running.has_ended) {
            // Nothing below waits, so an update is never half handled when a caller times out.
            let Some((index, update)) = self.updates.next().await else {
                return Some(self.fail(ApiError::server("The engine went away.")));
            };
            match self.take(index, update) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => return Some(self.fail(error)),
            }
        }
        None
    }

    /// The tokens that the request has used so far; those of a prompt count once.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (index, running) in self.running.iter().enumerate() {
            usage.answer += running.usage.answer.max(running.choice.answer());
            if index % self.choices == 0 {
                usage.prompt += running.prompt;
                usage.cached += running.usage.cached;
            }
        }
        usage
    }

    fn take(&mut self, index: usize, update: Update) -> Result<Option<AnswerEvent>, ApiError> {
        let running = &mut self.running[index];
        if running.has_ended {
            return Ok(None);
        }
        let note = |text: String| Ok(Some(AnswerEvent::Note(format!("choice {index}: {text}"))));
        match update {
            Update::Queued { ahead } => note(format!("waits behind {ahead}")),
            Update::Prefill { done, total } => note(format!("read {done} of {total} tokens")),
            Update::Paused => note("paused, a stage is being put right".to_string()),
            Update::Resumed => note("resumed".to_string()),
            Update::Prompt(scored) => Ok(Some(AnswerEvent::Prompt(index, scored))),
            Update::Token(token) => {
                let now = Instant::now();
                let before = running.last.replace(now);
                let since = now - before.unwrap_or(self.started);
                self.gateway.metrics.token(before.is_none(), since);
                let step = running.choice.token(token);
                let (piece, control) = step.map_err(|error| broken(&error))?;
                self.tell(index, control)?;
                Ok((!piece.is_empty()).then_some(AnswerEvent::Piece(index, piece)))
            }
            Update::Finished { finish, usage } => {
                running.usage = usage;
                running.has_ended = true;
                let (piece, reason, close) = running.choice.finish(finish);
                // If the engine is gone there is no receipt, but the answer is complete.
                if running.control.try_send(close).is_ok() {
                    self.gateway.metrics.closed();
                }
                let (elapsed, prompt) = (self.started.elapsed(), running.prompt);
                self.gateway.metrics.ended(reason, elapsed, prompt);
                Ok(Some(AnswerEvent::Ended(index, piece, reason)))
            }
            Update::Failed {
                reason,
                retry,
                usage,
            } => {
                running.usage = usage;
                Err(match retry {
                    true => ApiError::unavailable(Code::Failed, reason, 5),
                    false => ApiError::server(reason),
                })
            }
        }
    }

    fn tell(&self, index: usize, control: Option<Control>) -> Result<(), ApiError> {
        let Some(control) = control else {
            return Ok(());
        };
        let sent = self.running[index].control.try_send(control);
        sent.map_err(|_| ApiError::server("The engine takes no more word of this request."))
    }

    fn fail(&mut self, error: ApiError) -> AnswerEvent {
        self.has_failed = true;
        tracing::warn!("an answer failed: {}", error.message);
        AnswerEvent::Failed(error)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let usage = self.usage();
        self.permit.settle(&usage);
        let reason = match self.has_failed {
            true => "error",
            false => "abort",
        };
        for running in self.running.iter().filter(|running| !running.has_ended) {
            let (elapsed, prompt) = (self.started.elapsed(), running.prompt);
            tracing::info!(
                "cancelled after {} tokens: {reason}",
                running.choice.answer()
            );
            self.gateway.metrics.ended(reason, elapsed, prompt);
        }
    }
}

/// The error for a grammar or a text that cannot continue.
fn broken(error: &TextError) -> ApiError {
    ApiError::server(format!("The answer cannot go on: {error}."))
}
