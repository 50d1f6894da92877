//! The chain of a job, cut at the states that were kept of it: each segment can be computed again
//! from the state before it, by anyone, and with nobody's word.
//!
//! ```
//! use concord_verify::training::segments::{Segments, least_seen, unseen};
//!
//! let segments = Segments::new([10, 20], 25);
//! assert_eq!(segments.all(), [0..10, 10..20, 20..25]);
//! assert_eq!(segments.draw(3, &[7; 32]), [0, 1, 2]);
//! // One false segment of three is not among the two that are replayed.
//! assert!((unseen(3, 2, 1) - 1.0 / 3.0).abs() < 1e-12);
//! assert_eq!(least_seen(3, 2, 0.99), Some(2));
//! ```

use std::collections::BTreeSet;
use std::ops::Range;

use concord_proto::{Digest, Domain, Hasher, JobSpec};

/// The segments of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Steps of the chain before each, the first 0.
    starts: BTreeSet<u32>,
    /// Steps of the chain.
    end: u32,
}

impl Segments {
    /// Those of a chain of `end` steps whose state before the first step, and after each of the
    /// numbers of steps in `kept`, can be had. Where fewer states are kept, segments are longer:
    /// none of the chain is ever left out.
    pub fn new(kept: impl IntoIterator<Item = u32>, end: u32) -> Self {
        let within = kept.into_iter().filter(|steps| (1..end).contains(steps));
        Self {
            starts: within.chain([0]).collect(),
            end,
        }
    }

    /// The steps of each.
    pub fn all(&self) -> Vec<Range<u32>> {
        let ends = self.starts.iter().copied().skip(1).chain([self.end]);
        let starts = self.starts.iter().copied();
        starts.zip(ends).map(|(start, end)| start..end).collect()
    }

    /// `count` of them, or all where there are fewer, drawn by `seed`: rising indices into
    /// [`Self::all`].
    pub fn draw(&self, count: usize, seed: &[u8; 32]) -> Vec<usize> {
        let key = |index: usize| -> Digest {
            let mut hasher = Hasher::new(Domain::Replay);
            hasher.update(seed);
            hasher.update(&(index as u64).to_le_bytes());
            hasher.finish()
        };
        let mut keyed: Vec<(Digest, usize)> = (0..self.starts.len())
            .map(|index| (key(index), index))
            .collect();
        keyed.sort_unstable();
        keyed.truncate(count);
        let mut drawn: Vec<usize> = keyed.into_iter().map(|(_, index)| index).collect();
        drawn.sort_unstable();
        drawn
    }
}

/// The probability that none of `wrong` segments of `all` is among `drawn` of them: C(all - wrong,
/// drawn) / C(all, drawn).
pub fn unseen(all: u32, drawn: u32, wrong: u32) -> f64 {
    (0..drawn).fold(1.0, |unseen, before| {
        let right = all.saturating_sub(wrong).saturating_sub(before);
        unseen * f64::from(right) / f64::from(all.saturating_sub(before).max(1))
    })
}

/// The fewest false segments of `all` of which one is among `drawn` of them with the probability
/// `share`; `None` where not even all of them are.
pub fn least_seen(all: u32, drawn: u32, share: f64) -> Option<u32> {
    // What is certain must not be lost to rounding.
    (1..=all).find(|&wrong| 1.0 - unseen(all, drawn, wrong) >= share - 1e-12)
}

/// The steps of the chain that are done when the update of this number, counted from 1, is: an
/// evaluation after it is not. `None` where the job has no such update.
pub fn steps_after_update(spec: &JobSpec, update: u32) -> Option<u32> {
    if !(1..=spec.steps).contains(&update) {
        return None;
    }
    // Updates before a step never fall.
    let (mut least, mut most) = (1, spec.chain_steps());
    while least < most {
        let middle = least + (most - least) / 2;
        match spec.updates_before(middle) < update {
            true => least = middle + 1,
            false => most = middle,
        }
    }
    Some(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_in_one_segment() {
        for kept in [&[][..], &[3], &[3, 3, 1], &[0, 9, 10, 11]] {
            let segments = Segments::new(kept.iter().copied(), 10).all();
            let steps: Vec<u32> = segments.into_iter().flatten().collect();
            assert_eq!(steps, (0..10).collect::<Vec<_>>(), "{kept:?}");
        }
    }

    #[test]
    fn another_seed_draws_other_segments_and_each_as_often() {
        let segments = Segments::new(1..20, 20);
        let mut counts = [0; 20];
        for seed in 0..2_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_le_bytes());
            let drawn = segments.draw(3, &bytes);
            assert_eq!(drawn, segments.draw(3, &bytes));
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn.len() == 3);
            drawn.into_iter().for_each(|index| counts[index] += 1);
        }
        // 300 of each are expected, with a deviation of 16.
        assert!(
            counts.iter().all(|count| (220..380).contains(count)),
            "{counts:?}"
        );
        assert_eq!(segments.draw(50, &[0; 32]).len(), 20);
    }

    #[test]
    fn what_is_not_seen_is_counted_as_combinations() {
        let choose = |n: u32, k: u32| -> f64 {
            (0..k).fold(1.0, |all, i| {
                all * f64::from(n.saturating_sub(i)) / f64::from(i + 1)
            })
        };
        for (all, drawn) in [(20, 3), (20, 20), (1, 1), (7, 0)] {
            for wrong in 0..=all {
                let expected = choose(all - wrong, drawn) / choose(all, drawn);
                let found = unseen(all, drawn, wrong);
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{all} {drawn} {wrong}: {found}"
                );
            }
        }
        assert_eq!(least_seen(20, 20, 0.99), Some(1));
        assert_eq!(least_seen(20, 0, 0.99), None);
        let fewest = least_seen(20, 3, 0.99).unwrap();
        assert!(unseen(20, 3, fewest) <= 0.01 && unseen(20, 3, fewest - 1) > 0.01);
    }
}
