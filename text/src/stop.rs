//! Texts that end an answer.

/// Watches an answer for texts that end it. No part of a stop text is ever given out: what may be
/// the start of one waits.
///
/// Special tokens have a name but are no part of the answer. A stop text is found both in the
/// answer as people see it and with those names in it.
///
/// ```
/// use concord_text::StopTexts;
///
/// let mut stops = StopTexts::new(vec!["END".to_string()]);
/// // The start of a stop text waits.
/// assert_eq!(stops.push("one, two, EN").emit, "one, two, ");
/// let outcome = stops.push("D, three");
/// assert_eq!((outcome.emit.as_str(), outcome.hit), ("", Some(0)));
/// ```
#[derive(Clone, Debug)]
pub struct StopTexts {
    stops: Vec<Vec<char>>,
    /// What waits: an end of the answer so far that is a start of a stop text.
    held: Vec<Letter>,
    hit: Option<usize>,
}

/// A character of an answer, or of the name of a special token in it.
#[derive(Clone, Copy, Debug)]
struct Letter {
    character: char,
    is_hidden: bool,
}

/// What became of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is certainly before any stop text.
    pub emit: String,
    /// The stop text that ended the answer, by its index. Nothing follows.
    pub hit: Option<usize>,
}

impl StopTexts {
    /// Watches for these texts. Empty ones are never found.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.iter().map(|stop| stop.chars().collect()).collect(),
            held: Vec::new(),
            hit: None,
        }
    }

    /// Takes the next piece of the answer. The stop text that begins first ends it, the one that
    /// comes first in the list among those that begin at the same place and end by now. After a
    /// hit, nothing more comes.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        self.take(piece, false)
    }

    /// Takes the name of a special token, which is no part of the answer.
    pub fn push_hidden(&mut self, name: &str) -> StopOutcome {
        self.take(name, true)
    }

    /// Gives what is still held back: the answer has ended in another way.
    pub fn finish(&mut self) -> String {
        shown(std::mem::take(&mut self.held))
    }

    fn take(&mut self, piece: &str, is_hidden: bool) -> StopOutcome {
        let mut emit = String::new();
        for character in piece.chars() {
            if self.hit.is_some() {
                break;
            }
            self.held.push(Letter {
                character,
                is_hidden,
            });
            let end = match self.complete() {
                Some((index, start)) => {
                    self.hit = Some(index);
                    start
                }
                None => self.certain(),
            };
            emit += &shown(self.held.drain(..end));
            if self.hit.is_some() {
                self.held.clear();
            }
        }
        StopOutcome {
            emit,
            hit: self.hit,
        }
    }

    /// The stop text that ends where the answer ends now, and where it begins in what is held: the
    /// one that begins first.
    fn complete(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let starts = [true, false].map(|with_hidden| self.start_of(stop, with_hidden));
            let start = starts.into_iter().flatten().min()?;
            Some((start, index))
        });
        found.min().map(|(start, index)| (index, start))
    }

    /// Where `stop` begins, if what is held ends with it.
    fn start_of(&self, stop: &[char], with_hidden: bool) -> Option<usize> {
        let mut wanted = stop.iter().rev().peekable();
        // A stop text that is seen without names must not end in one: it ended before that.
        if !with_hidden && self.held.last()?.is_hidden {
            return None;
        }
        wanted.peek()?;
        for (at, letter) in self.held.iter().enumerate().rev() {
            if letter.is_hidden && !with_hidden {
                continue;
            }
            if wanted.next() != Some(&letter.character) {
                return None;
            }
            if wanted.peek().is_none() {
                return Some(at);
            }
        }
        None
    }

    /// How many letters of what is held cannot be part of a stop text.
    fn certain(&self) -> usize {
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            let all = rest.iter().map(|letter| letter.character);
            let seen = rest.iter().filter(|letter| !letter.is_hidden);
            let seen = seen.map(|letter| letter.character);
            self.stops
                .iter()
                .any(|stop| starts_with(stop, all.clone()) || starts_with(stop, seen.clone()))
        };
        let end = self.held.len();
        (0..end).find(begins).unwrap_or(end)
    }
}

/// Whether a stop text begins with these characters, of which there has to be one.
fn starts_with(stop: &[char], start: impl Iterator<Item = char>) -> bool {
    let mut stop = stop.iter();
    let mut count = 0;
    for character in start {
        if stop.next() != Some(&character) {
            return false;
        }
        count += 1;
    }
    count > 0
}

/// The letters that people see.
fn shown(letters: impl IntoIterator<Item = Letter>) -> String {
    let seen = letters.into_iter().filter(|letter| !letter.is_hidden);
    seen.map(|letter| letter.character).collect()
}
