//! Turns the tokens of one choice into its text.

use std::collections::VecDeque;
use std::sync::Arc;

use concord_proto::serving::{Control, Finish, TokenLogprob};
use concord_proto::{Domain, Hasher};
use concord_text::{
    AnswerText, CallEvent, CallParser, Guide, Next, ReasoningSplit, TextError, TextPiece,
    TextTokenizer, TokenReader, TokenText,
};

/// How a choice's tokens become text.
pub(crate) struct Reading {
    pub tokenizer: Arc<TextTokenizer>,
    pub stops: Vec<String>,
    pub stop_tokens: Vec<u32>,
    /// Tokens that are read otherwise than `tokenizer.json` has them.
    pub others: Vec<TokenText>,
    pub max_tokens: u32,
    pub wants_logprobs: bool,
    pub split: Option<ReasoningSplit>,
    pub calls: Option<CallParser>,
    pub guide: Option<Guide>,
}

/// One choice in progress: a state machine without clock or sockets.
pub(crate) struct Choice {
    text: AnswerText,
    stop_tokens: Vec<u32>,
    max_tokens: u32,
    split: Option<ReasoningSplit>,
    calls: Option<CallParser>,
    guide: Option<Guide>,
    wants_logprobs: bool,
    /// Tokens so far.
    answer: u32,
    /// Bytes of text from the tokens so far, and how many of them are certainly part of the answer:
    /// the last ones may turn out to be the start of a stop text.
    produced: usize,
    certain: usize,
    /// Logprobs of tokens whose text is not certain yet, with the offset at which it begins.
    waiting: VecDeque<(usize, TokenLogprob)>,
    /// The digest of all certain text.
    digest: Hasher,
    /// Why the answer has ended, where the engine does not know it by itself: later tokens are not
    /// part of it.
    ended: Option<Finish>,
    has_called: bool,
}

/// What may be sent to the client now.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub reasoning: String,
    pub content: String,
    /// Events of tool calls, without the text around them.
    pub calls: Vec<CallEvent>,
    pub logprobs: Vec<TokenLogprob>,
}

impl Piece {
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty()
            && self.content.is_empty()
            && self.calls.is_empty()
            && self.logprobs.is_empty()
    }
}

impl Choice {
    /// A choice that follows `prompt`.
    pub fn new(reading: Reading, prompt: &[u32]) -> Self {
        let reader = TokenReader::new(reading.tokenizer, reading.others);
        Self {
            text: AnswerText::new(reader, prompt, reading.stops),
            stop_tokens: reading.stop_tokens,
            max_tokens: reading.max_tokens,
            split: reading.split,
            calls: reading.calls,
            guide: reading.guide,
            wants_logprobs: reading.wants_logprobs,
            answer: 0,
            produced: 0,
            certain: 0,
            waiting: VecDeque::new(),
            digest: Hasher::new(Domain::Text),
            ended: None,
            has_called: false,
        }
    }

    /// Tokens so far.
    pub fn answer(&self) -> u32 {
        self.answer
    }

    /// What the engine has to be told before the first token.
    pub fn begin(&mut self) -> Result<Option<Control>, TextError> {
        match &mut self.guide {
            None => Ok(None),
            Some(guide) => Ok(Some(control(guide.allowed()?, 0))),
        }
    }

    /// Takes the next token. Returns what may be sent, and what the engine has to be told.
    pub fn token(&mut self, token: TokenLogprob) -> Result<(Piece, Option<Control>), TextError> {
        if self.ended.is_some() {
            return Ok((Piece::default(), None));
        }
        self.answer += 1;
        let id = token.token;
        if self.wants_logprobs {
            self.waiting.push_back((self.produced, token));
        }
        let ends = self.stop_tokens.contains(&id);
        let mut piece = Piece::default();
        if !ends {
            let read = self.text.push(id);
            self.read(&read, &mut piece);
        }
        let control = match &mut self.guide {
            _ if self.ended.is_some() => self.ended.map(|finish| Control::Stop {
                answer: self.answer,
                finish,
            }),
            Some(guide) if !ends && self.answer < self.max_tokens => {
                guide.accept(id)?;
                let control = control(guide.allowed()?, self.answer);
                if let Control::Stop { finish, .. } = control {
                    self.ended = Some(finish);
                }
                Some(control)
            }
            _ => None,
        };
        Ok((piece, control))
    }

    /// Ends the choice after the engine's last token. Returns the rest of the text, the finish
    /// reason in OpenAI's words, and the control that closes the receipt.
    pub fn finish(&mut self, finish: Finish) -> (Piece, &'static str, Control) {
        let mut piece = Piece::default();
        let ended = self.ended;
        let rest = self.text.finish();
        self.read(&rest, &mut piece);
        if let Some(split) = &mut self.split {
            let rest = split.finish();
            piece.reasoning.push_str(&rest.reasoning);
            self.content(rest.content, &mut piece);
        }
        let events = self.calls.as_mut().map(CallParser::finish);
        self.events(events.unwrap_or_default(), &mut piece);
        let is_cut = self.calls.as_ref().is_some_and(CallParser::is_cut);
        // After a stop text, tokens whose text begins after the cut are not part of the answer.
        let cut = match self.ended {
            Some(_) => self.certain,
            None => usize::MAX,
        };
        self.release(cut, &mut piece);
        let reason = match finish {
            // A stop text may have come with the last token of `max_tokens`; then it is the reason.
            Finish::Length if self.ended.is_none() => "length",
            // The reason `tool_calls` promises complete arguments.
            _ if self.has_called && !is_cut => "tool_calls",
            _ => "stop",
        };
        let text = self.digest.finish();
        // It may also have come before the engine's last token, which was drawn meanwhile.
        let finish = match (ended, finish) {
            (Some(ended), _) => ended,
            (None, Finish::Length) => self.ended.unwrap_or(finish),
            (None, finish) => finish,
        };
        (piece, reason, Control::Close { text, finish })
    }

    /// Takes new text, the end of which may be the start of a stop text.
    fn read(&mut self, read: &TextPiece, piece: &mut Piece) {
        self.produced += read.added;
        if read.is_stopped {
            self.ended.get_or_insert(Finish::StopText);
        }
        self.certain(&read.certain, piece);
        self.release(self.certain, piece);
    }

    /// Takes new text that is certainly part of the answer.
    fn certain(&mut self, text: &str, piece: &mut Piece) {
        self.certain += text.len();
        self.digest.update(text.as_bytes());
        match &mut self.split {
            None => self.content(text.to_string(), piece),
            Some(split) => {
                let parts = split.push(text);
                piece.reasoning.push_str(&parts.reasoning);
                self.content(parts.content, piece);
            }
        }
    }

    /// Takes new text of the answer that is not reasoning.
    fn content(&mut self, text: String, piece: &mut Piece) {
        match &mut self.calls {
            None => piece.content.push_str(&text),
            Some(calls) => {
                let events = calls.push(&text);
                self.events(events, piece);
            }
        }
    }

    fn events(&mut self, events: Vec<CallEvent>, piece: &mut Piece) {
        for event in events {
            match event {
                CallEvent::Text(text) => piece.content.push_str(&text),
                call => {
                    self.has_called = true;
                    piece.calls.push(call);
                }
            }
        }
    }

    /// Releases the logprobs of tokens whose text begins before `cut`.
    fn release(&mut self, cut: usize, piece: &mut Piece) {
        while self.waiting.front().is_some_and(|(start, _)| *start < cut) {
            let first = self.waiting.pop_front();
            piece.logprobs.extend(first.map(|(_, token)| token));
        }
    }
}

fn control(next: Next, answer: u32) -> Control {
    match next {
        Next::Tokens(tokens) => Control::Allow { answer, tokens },
        Next::End => Control::Stop {
            answer,
            finish: Finish::Grammar,
        },
    }
}
