//! Texts that end an answer.

/// Watches an answer for texts that end it. No part of a stop text is ever given out: what may be
/// the start of one waits.
#[derive(Clone, Debug)]
pub struct StopTexts {
    stops: Vec<String>,
    /// What waits: an end of the answer so far that is a start of a stop text.
    held: String,
    hit: Option<usize>,
}

/// What became of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that is certainly before any stop text.
    pub emit: String,
    /// The stop text that ended the answer, by its index. Nothing follows.
    pub hit: Option<usize>,
}

impl StopTexts {
    /// Watches for these texts. Empty ones are never found.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
            hit: None,
        }
    }

    /// Takes the next piece of the answer. The stop text that begins first ends it, the one that
    /// comes first in the list among those that begin at the same place and end by now. After a
    /// hit, nothing more comes.
    pub fn push(&mut self, piece: &str) -> Stopped {
        let mut emit = String::new();
        for character in piece.chars() {
            if self.hit.is_some() {
                break;
            }
            self.held.push(character);
            self.hit = self.complete();
            match self.hit {
                Some(index) => {
                    let end = self.held.len() - self.stops[index].len();
                    emit.push_str(&self.held[..end]);
                    self.held.clear();
                }
                None => emit.extend(self.held.drain(..self.certain())),
            }
        }
        Stopped {
            emit,
            hit: self.hit,
        }
    }

    /// Gives what waits still: the answer has ended otherwise.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop text that ends where the answer ends now: the longest, since it begins first.
    fn complete(&self) -> Option<usize> {
        let indexed = self.stops.iter().enumerate();
        let found = indexed.filter(|(_, stop)| !stop.is_empty() && self.held.ends_with(*stop));
        let longest = found.max_by_key(|(index, stop)| (stop.len(), std::cmp::Reverse(*index)));
        longest.map(|(index, _)| index)
    }

    /// How many bytes of what is held cannot be part of a stop text.
    fn certain(&self) -> usize {
        let starts = self.held.char_indices().map(|(at, _)| at);
        let begins = |at: &usize| {
            self.stops
                .iter()
                .any(|stop| stop.starts_with(&self.held[*at..]))
        };
        starts
            .filter(|at| begins(at))
            .min()
            .unwrap_or(self.held.len())
    }
}
