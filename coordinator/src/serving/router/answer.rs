//! An answer under way, as it moves from pipeline to pipeline.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use concord_proto::Digest;
use concord_proto::serving::{Generation, GivenLogprobs, Update};
use concord_verify::serving::EarlierHolder;
use tokio::sync::mpsc;

/// Updates that may wait beside the tokens of an answer.
pub(in crate::serving) const CHATTER_MAX: usize = 64;

/// An answer under way.
pub(in crate::serving) struct AnswerUnderWay {
    pub(in crate::serving) generation: Generation,
    pub(in crate::serving) updates: mpsc::Sender<Update>,
    /// Index of the pipeline that has it.
    pub(in crate::serving) home: Arc<AtomicU32>,
    /// The most tokens that it can have.
    pub(in crate::serving) tokens_max: usize,
    /// Tokens so far.
    pub(in crate::serving) tokens: u32,
    /// The logprobs that the client was given, as far as it asked for them.
    pub(in crate::serving) given: GivenLogprobs,
    /// Whether it was given those of the prompt.
    has_scored: bool,
    /// What the stages of an earlier plan have drawn and scored.
    pub(in crate::serving) before: EarlierHolder,
    /// Plans in a row that a stage gave up while it computed this answer.
    pub(in crate::serving) failures: u32,
}

impl AnswerUnderWay {
    /// An answer without a token, and where its updates arrive.
    pub(in crate::serving) fn new(
        generation: Generation,
        home: Arc<AtomicU32>,
        tokens_max: usize,
    ) -> (Self, mpsc::Receiver<Update>) {
        let (updates, waiting) = mpsc::channel(tokens_max + CHATTER_MAX);
        let answer = Self {
            generation,
            updates,
            home,
            tokens_max,
            tokens: 0,
            given: GivenLogprobs::default(),
            has_scored: false,
            before: EarlierHolder::default(),
            failures: 0,
        };
        (answer, waiting)
    }

    /// Whether it is computed with an adapter.
    pub(in crate::serving) fn uses(&self, adapter: &Digest) -> bool {
        self.generation.spec.adapter.as_ref() == Some(adapter)
    }

    /// A new plan is in effect: the tokens so far were drawn by stages of an earlier one.
    pub(in crate::serving) fn begin(&mut self) {
        self.before = EarlierHolder {
            drawn: self.tokens,
            has_scored: self.has_scored,
        };
    }

    /// Notes what the client is given, for the receipt.
    pub(in crate::serving) fn note(&mut self, update: &Update) {
        match update {
            Update::Token(token) => {
                self.tokens += 1;
                if self.generation.spec.logprobs.is_some() {
                    self.given.answer.push(token.clone());
                }
            }
            Update::Prompt(scored) => {
                self.given.prompt.clone_from(scored);
                self.has_scored = true;
            }
            Update::Queued { .. }
            | Update::Prefill { .. }
            | Update::Paused
            | Update::Resumed
            | Update::Finished { .. }
            | Update::Failed { .. } => {}
        }
    }
}
