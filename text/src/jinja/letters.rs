//! Text that remembers which of its characters came with the conversation.

use std::rc::Rc;

/// A character and its origin; and whether it stands in the template's mark of an answer
/// (`{% generation %}`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter(u32);

/// Where a text is from: the template, or the conversation, there from which message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterOrigin(u32);

// Of 32 bits, 21 are the character; so origins cost no memory, and no budget.
const CHARACTER: u32 = (1 << 21) - 1;
const GENERATED: u32 = 1 << 21;
const MESSAGE_SHIFT: u32 = 22;
const FOREIGN: u32 = 1 << 31;
/// What [`LetterOrigin`] is of a letter's bits.
const ORIGIN: u32 = !(CHARACTER | GENERATED);

/// Messages whose letters are told apart.
pub const MESSAGES_MAX: usize = (1 << (31 - MESSAGE_SHIFT)) - 1;

impl LetterOrigin {
    /// The template's own text.
    pub const TEMPLATE: Self = Self(0);
    /// Something that came with the conversation.
    pub const CONVERSATION: Self = Self(FOREIGN);

    /// The message of this index, or [`Self::CONVERSATION`] beyond [`MESSAGES_MAX`].
    pub fn message(index: usize) -> Self {
        match index < MESSAGES_MAX {
            true => Self(FOREIGN | (index as u32 + 1) << MESSAGE_SHIFT),
            false => Self::CONVERSATION,
        }
    }
}

impl Letter {
    /// A character and its origin.
    pub fn new(character: char, origin: LetterOrigin) -> Self {
        Self(u32::from(character) | origin.0)
    }

    /// A character of the template.
    pub fn own(character: char) -> Self {
        Self::new(character, LetterOrigin::TEMPLATE)
    }

    /// Another character in its place.
    pub fn with(self, character: char) -> Self {
        Self(self.0 & !CHARACTER | u32::from(character))
    }

    /// The same, as a part of an answer.
    pub fn generated(self) -> Self {
        Self(self.0 | GENERATED)
    }

    /// The character.
    pub fn character(self) -> char {
        char::from_u32(self.0 & CHARACTER).unwrap_or('\u{FFFD}')
    }

    /// Whether it came with the conversation.
    pub fn is_foreign(self) -> bool {
        self.0 & FOREIGN != 0
    }

    /// Whether it is a part of an answer, by the template's mark.
    pub fn is_generated(self) -> bool {
        self.0 & GENERATED != 0
    }

    /// The index of the message that it came with, where that is known.
    pub fn message(self) -> Option<usize> {
        let number = (self.0 & ORIGIN & !FOREIGN) >> MESSAGE_SHIFT;
        (number as usize).checked_sub(1)
    }
}

/// A text, cheap to clone. Two are equal if their characters are, wherever they came from.
#[derive(Clone, Debug)]
pub struct Text(Rc<[Letter]>);

impl Text {
    /// The template's own text.
    pub fn own(text: &str) -> Self {
        Self::of(text, LetterOrigin::TEMPLATE)
    }

    /// A text with its origin.
    pub fn of(text: &str, origin: LetterOrigin) -> Self {
        text.chars().map(|c| Letter::new(c, origin)).collect()
    }

    /// Its letters.
    pub fn letters(&self) -> &[Letter] {
        &self.0
    }

    /// Its characters.
    pub fn chars(&self) -> impl DoubleEndedIterator<Item = char> + ExactSizeIterator + Clone {
        self.0.iter().map(|letter| letter.character())
    }

    /// Its length in characters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A part of it.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self(self.0[range].into())
    }

    /// Whether it is this text.
    pub fn is(&self, text: &str) -> bool {
        self.chars().eq(text.chars())
    }

    /// Another text for each of its letters, of the same origin.
    pub fn map_letters<I: IntoIterator<Item = char>>(&self, map: impl Fn(char) -> I) -> Self {
        let mapped = self.0.iter().flat_map(|letter| {
            let characters = map(letter.character()).into_iter();
            characters.map(move |character| letter.with(character))
        });
        mapped.collect()
    }

    /// Where `needle` stands in it, in characters, without overlaps. An empty one stands
    /// everywhere.
    pub fn find_all(&self, needle: &Text) -> Vec<usize> {
        match needle.is_empty() {
            true => (0..=self.len()).collect(),
            false => places(self.chars(), &needle.0, usize::MAX),
        }
    }

    /// The first place of [`Self::find_all`].
    pub fn find(&self, needle: &Text) -> Option<usize> {
        match needle.is_empty() {
            true => Some(0),
            false => places(self.chars(), &needle.0, 1).first().copied(),
        }
    }

    /// The last place at which `needle` stands.
    pub fn find_last(&self, needle: &Text) -> Option<usize> {
        if needle.is_empty() || needle.len() > self.len() {
            return needle.is_empty().then_some(self.len());
        }
        let reversed: Vec<Letter> = needle.0.iter().rev().copied().collect();
        let from_end = *places(self.chars().rev(), &reversed, 1).first()?;
        Some(self.len() - from_end - needle.len())
    }

    /// Whether it begins with `start`.
    pub fn starts_with(&self, start: &Text) -> bool {
        let own = self.chars().take(start.len());
        self.len() >= start.len() && own.eq(start.chars())
    }

    /// Whether it ends with `end`.
    pub fn ends_with(&self, end: &Text) -> bool {
        let own = self.chars().rev().take(end.len());
        self.len() >= end.len() && own.eq(end.chars().rev())
    }
}

/// The first places of a needle in a text, without overlaps and in time of the lengths' sum: by
/// Knuth, Morris and Pratt. The needle is not empty.
fn places(text: impl ExactSizeIterator<Item = char>, needle: &[Letter], most: usize) -> Vec<usize> {
    let mut found = Vec::new();
    if needle.len() > text.len() {
        return found;
    }
    let wanted = |at: usize| needle[at].character();
    // How much of the needle stands at the end of each of its beginnings.
    let mut borders = vec![0; needle.len()];
    let step = |borders: &[usize], mut matched: usize, character: char| {
        while matched > 0 && wanted(matched) != character {
            matched = borders[matched - 1];
        }
        matched + usize::from(wanted(matched) == character)
    };
    let mut matched = 0;
    for at in 1..needle.len() {
        matched = step(&borders, matched, wanted(at));
        borders[at] = matched;
    }
    matched = 0;
    for (at, character) in text.enumerate() {
        matched = step(&borders, matched, character);
        if matched == needle.len() {
            found.push(at + 1 - matched);
            matched = 0;
            if found.len() == most {
                break;
            }
        }
    }
    found
}

impl FromIterator<Letter> for Text {
    fn from_iter<I: IntoIterator<Item = Letter>>(letters: I) -> Self {
        Self(letters.into_iter().collect())
    }
}

impl From<Vec<Letter>> for Text {
    fn from(letters: Vec<Letter>) -> Self {
        Self(letters.into())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.chars().eq(other.chars())
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write;
        self.chars()
            .try_for_each(|character| out.write_char(character))
    }
}
