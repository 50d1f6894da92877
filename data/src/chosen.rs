//! Which rows of a data set are taken: a part, and a share that is drawn.

use std::fmt;
use std::ops::Range;

use crate::error::DataError;
use crate::source::{DatasetSource, Shard};
use crate::split::PartEdge;

/// The rows of a data set that are taken, by their indices from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    from: u64,
    /// Exclusive.
    to: Option<u64>,
    /// Of those, whether each is drawn; empty where all are.
    drawn: Vec<bool>,
    /// Of all that, at most so many.
    pub most: Option<u32>,
}

impl Chosen {
    /// The first rows.
    pub fn first(most: u32) -> Self {
        Self {
            most: Some(most),
            ..Self::default()
        }
    }

    /// Those of a data set; `count` counts its rows, which takes a pass over the files, and is
    /// called only where the choice depends on it.
    pub fn of(
        source: &DatasetSource,
        count: &mut dyn FnMut() -> Result<u64, DataError>,
    ) -> Result<Self, DataError> {
        let (from, to) = source
            .split
            .as_ref()
            .map_or((None, None), |split| (split.from, split.to));
        let draw = Draw::of(source);
        let needs = |edge: Option<PartEdge>| edge.is_some_and(PartEdge::needs_count);
        let all = match draw.is_some() || needs(from) || needs(to) {
            true => count()?,
            // Edges that do not need it are below.
            false => i64::MAX as u64,
        };
        let from = from.map_or(0, |edge| edge.row(all));
        let to = to.map(|edge| edge.row(all));
        let last = to.unwrap_or(all);
        if from >= last {
            return Err(source.fail(match draw.is_some() || all < i64::MAX as u64 {
                true => format!("its `split` takes no row: there are {all}"),
                false => "its `split` takes no row".to_string(),
            }));
        }
        let drawn = match draw {
            None => Vec::new(),
            Some(draw) => {
                let drawn = drawn(last - from, &draw.ranks(last - from), source.seed);
                if !drawn.contains(&true) {
                    return Err(
                        source.fail(format!("{draw} takes none of its {} rows", last - from))
                    );
                }
                drawn
            }
        };
        Ok(Self {
            from,
            to,
            drawn,
            most: source.max_samples,
        })
    }

    /// Whether the row at `index` is taken.
    pub fn takes(&self, index: u64) -> bool {
        let Some(offset) = index.checked_sub(self.from) else {
            return false;
        };
        let is_drawn = match self.drawn.is_empty() {
            true => true,
            false => self.drawn.get(offset as usize).copied().unwrap_or(false),
        };
        is_drawn && self.to.is_none_or(|to| index < to)
    }

    /// Whether no row from `index` on is taken.
    pub fn is_over(&self, index: u64) -> bool {
        self.to.is_some_and(|to| index >= to)
    }
}

/// A choice by chance.
#[derive(Clone, Copy)]
enum Draw {
    /// A share of the rows, rounded down.
    Share(f64),
    /// A part of them.
    Shard(Shard),
}

impl Draw {
    fn of(source: &DatasetSource) -> Option<Self> {
        let share = source.weight.filter(|share| *share < 1.0);
        let shard = source.shard.filter(|shard| shard.of > 1);
        share.map(Self::Share).or(shard.map(Self::Shard))
    }

    /// Which of `count` rows these are in a random order. Where parts do not come out even, the
    /// first ones have a row more, as those of Hugging Face's data sets.
    fn ranks(self, count: u64) -> Range<usize> {
        match self {
            // A share such as 1/49 of 49 rows is one, although it is rounded.
            Self::Share(share) => 0..(count as f64 * share + 1e-9) as usize,
            Self::Shard(Shard { of, index }) => {
                let (of, index) = (u64::from(of), u64::from(index));
                let start = |index: u64| (count / of * index + index.min(count % of)) as usize;
                start(index)..start(index + 1)
            }
        }
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "`weight: {share}`"),
            Self::Shard(Shard { of, index }) => write!(f, "`shards: {of}, shards_idx: {index}`"),
        }
    }
}

/// Which of `count` rows are drawn: those with these ranks in the order of their hashes.
fn drawn(count: u64, ranks: &Range<usize>, seed: u64) -> Vec<bool> {
    let mut order: Vec<(u64, u64)> = (0..count).map(|row| (hash(seed, row), row)).collect();
    order.sort_unstable();
    let mut drawn = vec![false; count as usize];
    let those = order.into_iter().take(ranks.end).skip(ranks.start);
    for (_, row) in those {
        drawn[row as usize] = true;
    }
    drawn
}

/// SplitMix64 of a seed and an index.
pub(crate) fn hash(seed: u64, index: u64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bits = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::DatasetKind;
    use crate::split::RowSplit;

    /// The rows that are taken of `count`, and whether they had to be counted.
    fn rows(split: &str, count: u64) -> (Vec<u64>, bool) {
        let mut source = DatasetSource::new("a.jsonl", DatasetKind::Completion);
        source.split = Some(split.parse().unwrap());
        let mut was_counted = false;
        let chosen = Chosen::of(&source, &mut || {
            was_counted = true;
            Ok(count)
        });
        let chosen = chosen.unwrap();
        let taken = (0..count).filter(|index| chosen.takes(*index)).collect();
        (taken, was_counted)
    }

    #[test]
    fn parts_are_those_of_hugging_face() {
        for (split, count, expected, is_counted) in [
            ("train", 3, 0..3, false),
            ("train[1:2]", 3, 1..2, false),
            ("train[:2]", 9, 0..2, false),
            ("train[2:]", 4, 2..4, false),
            ("train[:50%]", 5, 0..2, true),
            ("train[50%:]", 5, 2..5, true),
            ("train[-1:]", 5, 4..5, true),
            ("train[10%:-20%]", 10, 1..8, true),
            ("train[:99]", 2, 0..2, false),
        ] {
            let expected = (expected.collect::<Vec<u64>>(), is_counted);
            assert_eq!(rows(split, count), expected, "{split}");
        }
        for wrong in [
            "",
            "[1:2]",
            "train[",
            "train[1]",
            "train[x:]",
            "train[:101%]",
            "a+b",
        ] {
            assert!(wrong.parse::<RowSplit>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_drawn_by_the_seed() {
        let of = |seed| drawn(1_000, &Draw::Share(0.25).ranks(1_000), seed);
        let drawn = of(7);
        assert_eq!(drawn.iter().filter(|taken| **taken).count(), 250);
        assert_eq!(drawn, of(7));
        assert_ne!(drawn, of(8));
        let first_half = drawn[..500].iter().filter(|taken| **taken).count();
        assert!((90..160).contains(&first_half), "{first_half}");
    }

    #[test]
    fn parts_are_all_there_is_and_share_nothing() {
        for (count, of, sizes) in [
            (10, 3, vec![4, 3, 3]),
            (8, 4, vec![2; 4]),
            (2, 3, vec![1, 1, 0]),
        ] {
            let shards = (0..of).map(|index| Draw::Shard(Shard { of, index }).ranks(count));
            let parts: Vec<Vec<bool>> = shards.map(|ranks| drawn(count, &ranks, 9)).collect();
            let taken = |part: &Vec<bool>| part.iter().filter(|taken| **taken).count();
            assert_eq!(parts.iter().map(taken).collect::<Vec<_>>(), sizes);
            for row in 0..count as usize {
                assert_eq!(parts.iter().filter(|part| part[row]).count(), 1, "{row}");
            }
        }
    }
}
