//! The binary tree over a logical index, and the atoms of tokens that it is taken over.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atoms {
    sequences: usize,
    sequence_len: usize,
}

impl Atoms {
    /// Tokens of an atom: a product over an atom flushes its accumulators once, and one large token
    /// costs at most 255 others precision.
    pub const TOKENS: usize = 256;

    /// The atoms of `sequences` sequences of `sequence_len` tokens.
    pub fn new(sequences: usize, sequence_len: usize) -> Self {
        Self {
            sequences,
            sequence_len,
        }
    }

    /// Number of atoms.
    pub fn count(&self) -> usize {
        self.sequences * self.sequence_len.div_ceil(Self::TOKENS)
    }

    /// Sequences of the microbatch, all of one length.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Tokens of a sequence.
    pub fn sequence_len(&self) -> usize {
        self.sequence_len
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences * self.sequence_len
    }

    /// First token and number of tokens of atom `index`.
    pub fn range(&self, index: usize) -> (usize, usize) {
        let per_sequence = self.sequence_len.div_ceil(Self::TOKENS);
        let (sequence, atom) = (index / per_sequence, index % per_sequence);
        let start = atom * Self::TOKENS;
        (
            sequence * self.sequence_len + start,
            Self::TOKENS.min(self.sequence_len - start),
        )
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
}
