//! An example: token ids of any length, and which of them are learnt.

use std::ops::Range;

/// What one row teaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 1 where the token is predicted from those before it, else 0. As long as `ids`.
    pub mask: Vec<u8>,
    /// Turns of which the chat template leaves a part out, such as a thought.
    pub shortened: u32,
}

impl Example {
    /// Adds tokens, all learnt or none.
    pub fn add(&mut self, ids: &[u32], is_learnt: bool) {
        self.ids.extend(ids);
        self.mask.resize(self.ids.len(), u8::from(is_learnt));
    }

    /// Tokens with their places in a text, of which those are learnt that stand for a byte in one
    /// of the `spans`, which are in order. A token that stands for nothing is learnt within a span.
    pub fn of_spans(tokens: Vec<(u32, Range<usize>)>, spans: &[Range<usize>]) -> Self {
        let mut example = Self::default();
        let mut spans = spans.iter().peekable();
        for (id, place) in tokens {
            while spans.next_if(|span| place.start >= span.end).is_some() {}
            let is_learnt = spans.peek().is_some_and(|span| place.end > span.start);
            example.add(&[id], is_learnt);
        }
        example
    }

    /// Tokens that are learnt: the first one never is, since nothing stands before it.
    pub fn trained(&self) -> usize {
        let learnt = self.mask.iter().skip(1).filter(|mask| **mask == 1);
        learnt.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_touch_a_span_are_learnt() {
        let tokens = [0..1, 1..3, 3..3, 3..5, 5..5, 5..7, 7..8];
        let tokens = tokens.into_iter().map(|place| (9, place)).collect();
        let example = Example::of_spans(tokens, &[2..3, 4..5, 6..7]);
        assert_eq!(example.mask, [0, 1, 0, 1, 0, 1, 0]);
    }
}
