//! Keeps names of control tokens in what people write as text.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::OnceLock;

use tokenizers::{AddedToken, Tokenizer};

use crate::error::TextError;
use crate::rendered_chat::RenderedChat;

/// Stand around the number of a control token that the template wrote. Unicode reserves both as
/// noncharacters: no text uses them.
const OPEN: char = '\u{10FFFE}';
const CLOSE: char = '\u{10FFFF}';

/// The control tokens of a tokenizer.
#[derive(Debug, Default)]
pub struct ControlTokens {
    tokens: Vec<(u32, String)>,
    /// Which of them begin with a character, the longest first.
    by_start: BTreeMap<char, Vec<usize>>,
    /// The unknown token, which any text that the vocabulary lacks becomes.
    unknown: Option<u32>,
    /// Made when it is first needed.
    guard: OnceLock<Guard>,
}

/// A text with stand-ins for control tokens, and where each stands in the text that it was.
pub struct KeptText {
    text: String,
    /// Each stand-in: its place, and that of the control token.
    moved: Vec<(Range<usize>, Range<usize>)>,
}

impl KeptText {
    /// The place of some of its bytes in the text that it was.
    fn place(&self, bytes: Range<usize>) -> Range<usize> {
        let at = |byte: usize, is_end: bool| {
            let count = self.moved.partition_point(|(kept, _)| kept.start <= byte);
            let Some((kept, was)) = count.checked_sub(1).map(|last| &self.moved[last]) else {
                return byte;
            };
            match (byte.checked_sub(kept.end), is_end && byte > kept.start) {
                (Some(behind), _) => was.end + behind,
                (None, true) => was.end,
                (None, false) => was.start,
            }
        };
        at(bytes.start, false)..at(bytes.end, true)
    }
}

/// A tokenizer that takes the names of control tokens for text, and stand-ins for the tokens.
#[derive(Debug)]
struct Guard {
    tokenizer: Tokenizer,
    /// Which token each stand-in is for.
    stands_for: BTreeMap<u32, u32>,
}

impl ControlTokens {
    /// The control tokens `tokens`, with their names.
    pub fn new<'a>(
        tokens: impl Iterator<Item = (&'a u32, &'a String)>,
        unknown: Option<u32>,
    ) -> Self {
        let tokens: Vec<(u32, String)> = tokens.map(|(id, text)| (*id, text.clone())).collect();
        let mut by_start: BTreeMap<char, Vec<usize>> = BTreeMap::new();
        for (index, (_, text)) in tokens.iter().enumerate() {
            if let Some(start) = text.chars().next() {
                by_start.entry(start).or_default().push(index);
            }
        }
        for indices in by_start.values_mut() {
            indices.sort_by_key(|index| std::cmp::Reverse(tokens[*index].1.len()));
        }
        Self {
            tokens,
            by_start,
            unknown,
            guard: OnceLock::new(),
        }
    }

    /// The text of a conversation with stand-ins for the control tokens that its template wrote.
    /// `None` where the template wrote all of them: then the text needs no guard.
    ///
    /// # Errors
    /// [`TextError::Conversation`] where it has the marks of stand-ins already.
    pub fn kept_as_text(&self, chat: &RenderedChat) -> Result<Option<KeptText>, TextError> {
        let text = chat.text();
        let found = self.find(text);
        if !found.iter().any(|(place, _)| chat.is_foreign(place)) {
            return Ok(None);
        }
        if text.contains([OPEN, CLOSE]) {
            return Err(TextError::Conversation {
                reason: "it has the name of a control token, and U+10FFFE or U+10FFFF, which are \
                         no characters: leave these out"
                    .to_string(),
            });
        }
        let mut kept = String::with_capacity(text.len());
        let (mut copied, mut moved) = (0, Vec::new());
        for (place, index) in found {
            if !chat.is_foreign(&place) {
                kept += &text[copied..place.start];
                let start = kept.len();
                kept += &stand_in(index);
                copied = place.end;
                moved.push((start..kept.len(), place));
            }
        }
        kept += &text[copied..];
        Ok(Some(KeptText { text: kept, moved }))
    }

    /// The tokens of what [`Self::kept_as_text`] gave, each with its place in the conversation's
    /// text. `tokenizer` is the one of the model.
    ///
    /// # Errors
    /// What the library says, and where plain text becomes a control token.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        kept: &KeptText,
        add_special: bool,
    ) -> tokenizers::Result<Vec<(u32, Range<usize>)>> {
        let guard = match self.guard.get() {
            Some(guard) => guard,
            None => {
                let made = self.guard(tokenizer)?;
                self.guard.get_or_init(|| made)
            }
        };
        let plain = guard.tokenizer.encode(kept.text.as_str(), false)?;
        let control: BTreeSet<u32> = self.tokens.iter().map(|(id, _)| *id).collect();
        let leaks = |id: &&u32| control.contains(*id) && self.unknown != Some(**id);
        if let Some(id) = plain.get_ids().iter().find(leaks) {
            let name = self.tokens.iter().find(|(own, _)| own == id);
            let name = name.map_or("", |(_, name)| name);
            return Err(format!("it makes the control token {name} of plain text").into());
        }
        let encoding = match add_special {
            true => guard.tokenizer.encode(kept.text.as_str(), true)?,
            false => plain,
        };
        let real = |id: &u32| *guard.stands_for.get(id).unwrap_or(id);
        let ids = encoding.get_ids().iter().map(real);
        let places = encoding.get_offsets().iter();
        let places = places.map(|(start, end)| kept.place(*start..*end));
        Ok(ids.zip(places).collect())
    }

    fn guard(&self, tokenizer: &Tokenizer) -> tokenizers::Result<Guard> {
        let mut tokenizer = tokenizer.clone();
        let added = tokenizer.get_added_tokens_decoder().clone();
        let known = |id: &u32| added.get(id).cloned();
        // All of them are made special here, because the library can be told to ignore special
        // tokens.
        let special = self.tokens.iter().filter_map(|(id, _)| known(id));
        let special: Vec<AddedToken> = special.map(|token| token.special(true)).collect();
        tokenizer.add_special_tokens(special)?;
        let stand_ins = self
            .tokens
            .iter()
            .enumerate()
            .filter_map(|(index, (id, _))| {
                let token = known(id)?;
                let own = AddedToken::from(stand_in(index), false)
                    .lstrip(token.lstrip)
                    .rstrip(token.rstrip)
                    .single_word(token.single_word)
                    .normalized(false);
                Some((*id, own))
            });
        let stand_ins: Vec<(u32, AddedToken)> = stand_ins.collect();
        tokenizer.add_tokens(stand_ins.iter().map(|(_, token)| token.clone()))?;
        let pairs = stand_ins
            .iter()
            .filter_map(|(id, token)| Some((tokenizer.token_to_id(&token.content)?, *id)));
        let stands_for = pairs.collect();
        tokenizer.set_encode_special_tokens(true);
        Ok(Guard {
            tokenizer,
            stands_for,
        })
    }

    /// Where control tokens stand in a text, and which: the longest of those that begin first.
    fn find(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        let mut found = Vec::new();
        let mut end = 0;
        for (at, character) in text.char_indices() {
            let Some(indices) = self.by_start.get(&character).filter(|_| at >= end) else {
                continue;
            };
            let is_here = |index: &&usize| text[at..].starts_with(&self.tokens[**index].1);
            if let Some(index) = indices.iter().find(is_here) {
                end = at + self.tokens[*index].1.len();
                found.push((at..end, *index));
            }
        }
        found
    }
}

fn stand_in(index: usize) -> String {
    format!("{OPEN}{index}{CLOSE}")
}
