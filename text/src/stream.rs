//! The text of token ids that come one by one.

use crate::error::TextError;
use crate::token_reader::TokenReader;
use crate::tokenizer::TextTokenizer;

/// The text of ids that come one by one, as the tokenizer's own decoder has it. What it gives out
/// is valid UTF-8 and is never taken back; all of it together is the text of all ids.
///
/// A token may hold a part of a character, and some tokenizers decode a token differently at the
/// start of a text. So the ids of the last piece stay in front of the new ones, and a piece that
/// ends in U+FFFD waits for more ids.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// The ids of the last piece given out, then those that wait.
    ids: Vec<u32>,
    /// How many of `ids` have been given out.
    emitted: usize,
}

/// A character has at most four bytes, so more waiting ids than this are not one character: the
/// bytes are broken, and waiting longer would not help.
const WAITING_MAX: usize = 8;

impl TextTokenizer {
    /// A decoder for ids that come one by one, with special tokens left out.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }
}

impl<'a> TokenStream<'a> {
    fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            emitted: 0,
        }
    }

    /// Takes one id, and gives the text that is now complete; often empty.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let text = self.pending()?;
        let waiting = self.ids.len() - self.emitted;
        if text.is_empty() || (text.ends_with('\u{FFFD}') && waiting <= WAITING_MAX) {
            return Ok(String::new());
        }
        self.ids.drain(..self.emitted);
        self.emitted = self.ids.len();
        Ok(text)
    }

    /// Gives what still waits, broken characters as U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn finish(self) -> Result<String, TextError> {
        self.pending()
    }

    fn pending(&self) -> Result<String, TextError> {
        let before = self.tokenizer.decode(&self.ids[..self.emitted], true)?;
        let all = self.tokenizer.decode(&self.ids, true)?;
        match all.strip_prefix(&before) {
            Some(text) => Ok(text.to_string()),
            // Broken bytes changed how the ids before them decode: take the new ids alone.
            None => self.tokenizer.decode(&self.ids[self.emitted..], true),
        }
    }
}

/// The text of an answer, from the exact bytes of its tokens. Owned, so that a task can hold it;
/// each token takes constant time.
///
/// What it gives out is valid UTF-8 and is never taken back. The text of the prompt and all of it
/// together are the text of all ids.
#[derive(Debug)]
pub struct TextStream {
    reader: TokenReader,
    /// Spaces that the start of a text still swallows.
    leading: usize,
    /// The start of a character: at most three bytes.
    held: Vec<u8>,
}

impl TextStream {
    /// The text that follows `prompt`.
    pub fn new(reader: TokenReader, prompt: &[u32]) -> Self {
        let is_text = |id: &u32| {
            let (bytes, is_hidden) = reader.read(*id);
            !is_hidden && !bytes.is_empty()
        };
        // The start of a text swallows a space; after a text nothing is swallowed.
        let leading = match prompt.iter().any(is_text) {
            true => 0,
            false => reader.leading_spaces(),
        };
        Self {
            reader,
            leading,
            held: Vec::new(),
        }
    }

    /// The name of a token that is no part of the text.
    pub fn hidden(&self, id: u32) -> Option<String> {
        let (bytes, is_hidden) = self.reader.read(id);
        is_hidden.then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Takes one id, and gives the text that is now complete; often empty.
    pub fn push(&mut self, id: u32) -> String {
        let (bytes, is_hidden) = self.reader.read(id);
        if is_hidden {
            return String::new();
        }
        let mut bytes = bytes.as_slice();
        while self.leading > 0 && !bytes.is_empty() {
            let Some(rest) = bytes.strip_prefix(b" ") else {
                self.leading = 0;
                break;
            };
            self.leading -= 1;
            bytes = rest;
        }
        self.held.extend_from_slice(bytes);
        self.take_whole()
    }

    /// Gives what still waits: the start of a character that never ended, as U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }

    /// All held bytes but those that may yet become a character.
    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        let mut bytes = self.held.as_slice();
        loop {
            match std::str::from_utf8(bytes) {
                Ok(whole) => {
                    text.push_str(whole);
                    bytes = &[];
                    break;
                }
                Err(error) => {
                    let (whole, rest) = bytes.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    bytes = rest;
                    let Some(broken) = error.error_len() else {
                        break;
                    };
                    text.push('\u{FFFD}');
                    bytes = &bytes[broken..];
                }
            }
        }
        self.held = bytes.to_vec();
        text
    }
}
