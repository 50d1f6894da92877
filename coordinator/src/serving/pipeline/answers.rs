//! Answers under way: their updates and their ends.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::Digest;
use concord_proto::serving::{Update, Usage};

use crate::serving::router::{AnswerUnderWay, CHATTER_MAX};

/// Room in a client's channel that is reserved for updates that have to arrive.
const LAST_WORDS: usize = CHATTER_MAX / 4;

/// An answer ends after so many plans in a row in which a stage gave up while it computed it.
pub(super) const FAILURES_MAX: u32 = 3;

/// Answers under way in a pipeline.
#[derive(Default)]
pub(super) struct AnswersUnderWay {
    /// By sequence.
    answers: BTreeMap<u64, AnswerUnderWay>,
    /// Tokens drawn since the start.
    tokens: u64,
}

/// What came of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// It was a token.
    pub(super) is_token: bool,
    /// The client does not want the rest.
    pub(super) is_unwanted: bool,
}

impl AnswersUnderWay {
    pub(super) fn insert(&mut self, sequence: u64, answer: AnswerUnderWay) {
        self.answers.insert(sequence, answer);
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&AnswerUnderWay> {
        self.answers.get(&sequence)
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<AnswerUnderWay> {
        self.answers.remove(&sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.answers.keys().copied().collect()
    }

    /// Those that are computed with an adapter.
    pub(super) fn using(&self, adapter: &Digest) -> Vec<u64> {
        let users = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.uses(adapter));
        users.map(|(sequence, _)| *sequence).collect()
    }

    /// Tokens drawn since the start.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// A new plan is in effect.
    pub(super) fn begin(&mut self) {
        self.answers.values_mut().for_each(AnswerUnderWay::begin);
    }

    /// Tells the client. A client that lets its channel fill up has given its answer up.
    pub(super) fn deliver(&mut self, sequence: u64, update: Update) -> Option<Delivery> {
        let answer = self.answers.get_mut(&sequence)?;
        if is_chatter(&update) && answer.updates.capacity() <= answer.tokens_max + LAST_WORDS {
            return None;
        }
        let is_last = matches!(update, Update::Finished { .. } | Update::Failed { .. });
        let is_token = matches!(update, Update::Token(_));
        answer.note(&update);
        self.tokens += u64::from(is_token);
        let is_gone = answer.updates.try_send(update).is_err();
        if is_last || is_gone {
            self.answers.remove(&sequence);
        }
        Some(Delivery {
            is_token,
            is_unwanted: is_gone && !is_last,
        })
    }

    /// Ends an answer. `retry` says whether it may succeed on another pipeline or later.
    pub(super) fn fail(&mut self, sequence: u64, reason: &str, retry: bool) {
        let Some(answer) = self.answers.remove(&sequence) else {
            return;
        };
        let usage = Usage {
            prompt: answer.generation.spec.prompt.len() as u32,
            cached: 0,
            answer: answer.tokens,
        };
        let failed = Update::Failed {
            reason: reason.to_string(),
            retry,
            usage,
        };
        // A client that is gone misses nothing.
        let _ = answer.updates.try_send(failed);
    }

    /// A stage has given up while it computed these sequences. Gives those that stages give up on
    /// again and again: they have to end, so that they do not bring down one plan after the other.
    pub(super) fn blame(&mut self, suspects: &BTreeSet<u64>) -> Vec<u64> {
        let mut blamed = Vec::new();
        for (sequence, answer) in &mut self.answers {
            let is_suspect = suspects.contains(sequence);
            answer.failures = if is_suspect { answer.failures + 1 } else { 0 };
            if answer.failures >= FAILURES_MAX {
                blamed.push(*sequence);
            }
        }
        blamed
    }
}

/// Whether an update may be left out where its reader is slow.
fn is_chatter(update: &Update) -> bool {
    match update {
        Update::Queued { .. } | Update::Prefill { .. } | Update::Paused | Update::Resumed => true,
        Update::Prompt(_) | Update::Token(_) | Update::Finished { .. } | Update::Failed { .. } => {
            false
        }
    }
}
