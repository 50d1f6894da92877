//! Why an answer ended: a function of its spec and its tokens, and of the text that they give.

use concord_proto::serving::{Finish, GenerationSpec};

/// The tokens of an answer, and why there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerEnd {
    /// Tokens of the answer. Those behind them were drawn before a stop text was seen.
    pub tokens: u32,
    pub finish: Finish,
}

/// What determines the end of an answer.
#[derive(Clone, Copy, Debug)]
pub struct EndRules<'a> {
    pub spec: &'a GenerationSpec,
    pub answer: &'a [u32],
    /// Positions that a sequence may have.
    pub positions: u32,
}

impl EndRules<'_> {
    /// Whether a stop token is the last.
    pub fn ends_with_stop_token(&self) -> bool {
        let last = self.answer.last();
        last.is_some_and(|last| self.spec.stop_tokens.contains(last))
    }

    /// Whether no further token may be drawn: `max_tokens`, or no position is left.
    pub fn is_full(&self) -> bool {
        let (prompt, count) = (self.spec.prompt.len() as u64, self.answer.len() as u64);
        count >= u64::from(self.spec.max_tokens) || prompt + count >= u64::from(self.positions)
    }

    /// The end, where nothing but stop texts and the grammar is in doubt: `by_text` is where one of
    /// these ends the answer. `None` where nothing ends it.
    pub fn end(&self, by_text: Option<AnswerEnd>) -> Option<AnswerEnd> {
        let finish = match (self.ends_with_stop_token(), self.is_full()) {
            (true, _) => Finish::StopToken,
            (false, true) => Finish::Length,
            (false, false) => return by_text,
        };
        let tokens = self.answer.len() as u32;
        Some(by_text.unwrap_or(AnswerEnd { tokens, finish }))
    }

    /// Checks what can be told of `finish` without a tokenizer.
    ///
    /// # Errors
    /// A sentence about the answer.
    pub fn check(&self, finish: Finish) -> Result<(), &'static str> {
        let is_stopped = self.ends_with_stop_token();
        match finish {
            Finish::StopToken if !is_stopped => {
                Err("it is said to end with a stop token, and its last token is none")
            }
            Finish::Length | Finish::Grammar if is_stopped => {
                Err("its last token is a stop token, and is not said to have ended it")
            }
            Finish::Length if !self.is_full() => {
                Err("the answer ends before its length is reached")
            }
            Finish::StopText if self.spec.stop_texts.is_empty() => {
                Err("it is said to end with a stop text, and has none")
            }
            Finish::Grammar if self.spec.sampling.grammar.is_none() => {
                Err("it is said to end with its grammar, and has none")
            }
            Finish::StopToken
            | Finish::StopText
            | Finish::Grammar
            | Finish::Length
            | Finish::Cancelled => Ok(()),
        }
    }
}
