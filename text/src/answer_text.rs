//! The text of an answer, and where a stop text ends it.

use crate::stop::StopTexts;
use crate::stream::TextStream;
use crate::token_reader::TokenReader;

/// The text of an answer, token by token, up to the first stop text. Who serves an answer and who
/// judges it read it by this.
#[derive(Debug)]
pub struct AnswerText {
    /// Until the answer ends.
    stream: Option<TextStream>,
    stops: StopTexts,
}

/// What a token brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextPiece {
    /// Bytes that are added to the text, stop texts and all.
    pub added: usize,
    /// Text that is certainly part of the answer.
    pub certain: String,
    /// Whether a stop text has ended the answer.
    pub is_stopped: bool,
}

impl AnswerText {
    /// The text that follows `prompt`, until one of `stops`.
    pub fn new(reader: TokenReader, prompt: &[u32], stops: Vec<String>) -> Self {
        Self {
            stream: Some(TextStream::new(reader, prompt)),
            stops: StopTexts::new(stops),
        }
    }

    /// Takes a token, but for one that ends the answer as a stop token: that has no text.
    pub fn push(&mut self, id: u32) -> TextPiece {
        let Some(stream) = &mut self.stream else {
            return TextPiece::default();
        };
        let (added, outcome) = match stream.hidden(id) {
            // It may be named as a stop text.
            Some(name) => (0, self.stops.push_hidden(&name)),
            None => {
                let text = stream.push(id);
                (text.len(), self.stops.push(&text))
            }
        };
        TextPiece {
            added,
            certain: outcome.emit,
            is_stopped: outcome.hit.is_some(),
        }
    }

    /// The rest of the text: no token follows.
    pub fn finish(&mut self) -> TextPiece {
        let rest = self.stream.take().map(TextStream::finish);
        let rest = rest.unwrap_or_default();
        let outcome = self.stops.push(&rest);
        TextPiece {
            added: rest.len(),
            certain: outcome.emit + &self.stops.finish(),
            is_stopped: outcome.hit.is_some(),
        }
    }
}
