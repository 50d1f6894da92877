//! The binary tree over a logical index, and the atoms of tokens that it is taken over.

use std::ops::Range;

use super::lengths::{LengthGroup, Lengths};

/// Adds `count` values in a binary tree: a run splits at the largest power of two below its length.
/// `leaf(i)` makes the i-th value; `add(a, b)` is `a += b`. At most `log2(count) + 1` values
/// (rounded up) are alive.
///
/// # Panics
/// For `count` of 0: there is nothing to add.
///
/// ```
/// use concord_kernels::ops::tree_sum;
///
/// let mut leaf = |index: usize| index.to_string();
/// let mut add = |a: &mut String, b: String| *a = format!("({a}+{b})");
/// assert_eq!(tree_sum(5, &mut leaf, &mut add), "(((0+1)+(2+3))+4)");
/// ```
pub fn tree_sum<T>(
    count: usize,
    leaf: &mut impl FnMut(usize) -> T,
    add: &mut impl FnMut(&mut T, T),
) -> T {
    assert!(count > 0, "a tree sum of nothing");
    run(0, count, leaf, add)
}

fn run<T>(
    start: usize,
    count: usize,
    leaf: &mut impl FnMut(usize) -> T,
    add: &mut impl FnMut(&mut T, T),
) -> T {
    if count == 1 {
        return leaf(start);
    }
    let half = 1 << (count - 1).ilog2();
    let mut left = run(start, half, leaf, add);
    let right = run(start + half, count - half, leaf, add);
    add(&mut left, right);
    left
}

/// The cut of a microbatch into atoms: runs of at most [`Atoms::TOKENS`] tokens of one sequence.
///
/// ```
/// use concord_kernels::ops::Atoms;
///
/// let atoms = Atoms::new(2, 300);
/// assert_eq!(atoms.count(), 4);
/// assert_eq!(atoms.range(2), (300, 256));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atoms {
    sequences: Lengths,
    /// First token and number of tokens of each.
    ranges: Vec<(usize, usize)>,
}

/// The atoms of neighbouring sequences of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AtomGroup {
    pub(crate) sequences: LengthGroup,
    pub(crate) first_atom: usize,
    pub(crate) count: usize,
}

impl Atoms {
    /// Tokens of an atom: a product over an atom flushes its accumulators once, and one large token
    /// costs at most 255 others precision.
    pub const TOKENS: usize = 256;

    /// The atoms of `sequences` sequences of `sequence_len` tokens.
    pub fn new(sequences: usize, sequence_len: usize) -> Self {
        Self::of(Lengths::uniform(sequences, sequence_len))
    }

    /// The atoms of these sequences.
    pub fn of(sequences: Lengths) -> Self {
        let of_sequence = |tokens: Range<usize>| {
            let starts = tokens.clone().step_by(Self::TOKENS);
            starts.map(move |start| (start, Self::TOKENS.min(tokens.end - start)))
        };
        let ranges = sequences.ranges().flat_map(of_sequence).collect();
        Self { sequences, ranges }
    }

    /// Number of atoms.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Sequences of the microbatch.
    pub fn sequences(&self) -> &Lengths {
        &self.sequences
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.tokens()
    }

    /// First token and number of tokens of atom `index`.
    pub fn range(&self, index: usize) -> (usize, usize) {
        self.ranges[index]
    }

    /// Tokens of the longest atom.
    pub(crate) fn longest(&self) -> usize {
        self.sequences.longest().min(Self::TOKENS)
    }

    /// The atoms in groups whose sequences have one length, for kernels that find the place of an
    /// atom by its index.
    pub(crate) fn groups(&self) -> impl Iterator<Item = AtomGroup> + '_ {
        self.sequences.groups().scan(0, |next, sequences| {
            let count = sequences.count * sequences.len.div_ceil(Self::TOKENS);
            let first_atom = *next;
            *next += count;
            Some(AtomGroup {
                sequences,
                first_atom,
                count,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_splits_at_powers_of_two() {
        let mut leaf = |i: usize| i.to_string();
        let mut add = |a: &mut String, b: String| *a = format!("({a}{b})");
        assert_eq!(tree_sum(7, &mut leaf, &mut add), "(((01)(23))((45)6))");
        assert_eq!(tree_sum(1, &mut leaf, &mut add), "0");
    }

    #[test]
    fn atoms_cover_every_token_once_and_never_two_sequences() {
        for (sequences, len) in [(1, 1), (3, 256), (2, 257), (2, 600)] {
            let atoms = Atoms::new(sequences, len);
            let mut next = 0;
            for index in 0..atoms.count() {
                let (start, count) = atoms.range(index);
                assert_eq!(start, next);
                assert_eq!(start / len, (start + count - 1) / len);
                next += count;
            }
            assert_eq!(next, atoms.tokens());
        }
    }

    #[test]
    fn atoms_of_unlike_sequences_are_those_of_each_alone() {
        let atoms = Atoms::of(Lengths::new(vec![300, 5, 5, 256]));
        let ranges: Vec<_> = (0..atoms.count()).map(|index| atoms.range(index)).collect();
        assert_eq!(
            ranges,
            [(0, 256), (256, 44), (300, 5), (305, 5), (310, 256)]
        );
        let groups: Vec<_> = atoms.groups().map(|g| (g.first_atom, g.count)).collect();
        assert_eq!(groups, [(0, 2), (2, 2), (4, 1)]);
    }
}
