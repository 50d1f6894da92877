//! A conversation as the text that a model reads.

use std::ops::Range;

use crate::jinja::Letter;

/// What a chat template made of a conversation, and which parts of it came with the conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedChat {
    text: String,
    /// Parts that came with the conversation, in their order, in bytes.
    foreign: Vec<Range<usize>>,
    /// Parts that came with one message: its index, from its first to its last byte.
    messages: Vec<(usize, Range<usize>)>,
    /// Parts that the template marks as said by the assistant, in their order.
    generated: Vec<Range<usize>>,
}

impl RenderedChat {
    pub(crate) fn of(letters: &[Letter]) -> Self {
        let mut chat = Self::default();
        for letter in letters {
            let start = chat.text.len();
            chat.text.push(letter.character());
            let place = start..chat.text.len();
            if letter.is_foreign() {
                extend(&mut chat.foreign, &place);
            }
            if letter.is_generated() {
                extend(&mut chat.generated, &place);
            }
            if let Some(message) = letter.message() {
                chat.came_with(message, &place);
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

    /// From the first to the last byte that came with a message; `None` where it left no text, or
    /// where the message is beyond [`Self::MESSAGES_MAX`]. Texts of roles count as the template's.
    pub fn message(&self, index: usize) -> Option<Range<usize>> {
        let found = self.messages.iter().find(|(message, _)| *message == index);
        found.map(|(_, place)| place.clone())
    }

    /// Messages of a conversation whose text can be found by [`Self::message`].
    pub const MESSAGES_MAX: usize = crate::jinja::MESSAGES_MAX;

    /// The parts that the template marks as said by the assistant (`{% generation %}`), in bytes
    /// and in their order.
    pub fn generated(&self) -> &[Range<usize>] {
        &self.generated
    }

    fn came_with(&mut self, message: usize, place: &Range<usize>) {
        // The message that is being written is the last one that was found, but for templates
        // that repeat one.
        let mut known = self.messages.iter_mut().rev();
        match known.find(|(index, _)| *index == message) {
            Some((_, whole)) => whole.end = place.end,
            None => self.messages.push((message, place.clone())),
        }
    }
}

/// Adds a part behind all others, or to the last one.
fn extend(parts: &mut Vec<Range<usize>>, place: &Range<usize>) {
    match parts.last_mut() {
        Some(last) if last.end == place.start => last.end = place.end,
        _ => parts.push(place.clone()),
    }
}
