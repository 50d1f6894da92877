//! A conversation as the text that a model reads.

use std::ops::Range;

use crate::jinja::Letter;

/// What a chat template made of a conversation, and which parts of it came with the conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedChat {
    text: String,
    /// Parts that came with the conversation, in their order, in bytes.
    foreign: Vec<Range<usize>>,
}

impl RenderedChat {
    pub(crate) fn of(letters: &[Letter]) -> Self {
        let mut chat = Self::default();
        for letter in letters {
            let start = chat.text.len();
            chat.text.push(letter.character());
            let end = chat.text.len();
            if !letter.is_foreign() {
                continue;
            }
            match chat.foreign.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => chat.foreign.push(start..end),
            }
        }
        chat
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether any of these bytes came with the conversation.
    pub fn is_foreign(&self, bytes: &Range<usize>) -> bool {
        let first = self.foreign.partition_point(|part| part.end <= bytes.start);
        let part = self.foreign.get(first);
        part.is_some_and(|part| part.start < bytes.end)
    }
}
