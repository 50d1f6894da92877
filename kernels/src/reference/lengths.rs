//! The lengths of pieces of a microbatch that follow each other.

use std::ops::Range;
use std::sync::Arc;

/// How many tokens each of some pieces has, which follow each other without a gap: the sequences of
/// a microbatch, or the documents in them.
///
/// ```
/// use concord_kernels::ops::Lengths;
///
/// let lengths = Lengths::new(vec![3, 3, 5]);
/// assert_eq!(lengths.tokens(), 11);
/// assert_eq!(lengths.ranges().last(), Some(6..11));
/// assert_eq!(lengths.groups().count(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lengths {
    lengths: Arc<[u32]>,
    tokens: usize,
}

/// Neighbours of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthGroup {
    /// Tokens before them.
    pub first_token: usize,
    /// How many they are.
    pub count: usize,
    /// Tokens of each.
    pub len: usize,
}

impl LengthGroup {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        first_token: 0,
        count: 0,
        len: 0,
    };

    /// Tokens of all of them.
    pub fn tokens(&self) -> usize {
        self.count * self.len
    }
}

impl Lengths {
    /// Pieces of these lengths.
    pub fn new(lengths: Vec<u32>) -> Self {
        Self {
            tokens: lengths.iter().map(|&len| len as usize).sum(),
            lengths: lengths.into(),
        }
    }

    /// `count` pieces of `len` tokens.
    pub fn uniform(count: usize, len: usize) -> Self {
        Self::new(vec![len as u32; count])
    }

    /// How many pieces there are.
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of all pieces.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of the longest piece.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0) as usize
    }

    /// The lengths, one after another.
    pub fn as_slice(&self) -> &[u32] {
        &self.lengths
    }

    /// The tokens of each piece.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.lengths.iter().scan(0, |next, &len| {
            let first = *next;
            *next += len as usize;
            Some(first..*next)
        })
    }

    /// The position of each token in its own piece.
    pub fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|&len| 0..len).collect()
    }

    /// Neighbours of one length together, as a GPU takes them in one launch.
    pub fn groups(&self) -> impl Iterator<Item = LengthGroup> + '_ {
        let runs = self.lengths.chunk_by(|a, b| a == b);
        runs.scan(0, |next, run| {
            let group = LengthGroup {
                first_token: *next,
                count: run.len(),
                len: run[0] as usize,
            };
            *next += group.tokens();
            Some(group)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_groups_cover_the_same_tokens() {
        for lengths in [vec![], vec![4], vec![2, 2, 7, 2], vec![1, 1, 1]] {
            let lengths = Lengths::new(lengths);
            let ranges: usize = lengths.ranges().map(|range| range.len()).sum();
            let groups: usize = lengths.groups().map(|group| group.tokens()).sum();
            assert_eq!((ranges, groups), (lengths.tokens(), lengths.tokens()));
            assert_eq!(lengths.positions().len(), lengths.tokens());
        }
        let groups: Vec<_> = Lengths::new(vec![2, 2, 7]).groups().collect();
        let of = |first_token, count, len| LengthGroup {
            first_token,
            count,
            len,
        };
        assert_eq!(groups, [of(0, 2, 2), of(4, 1, 7)]);
    }
}
