//! How the sequences of several data sets alternate, as in Hugging Face's `interleave_datasets`.

use crate::chosen::hash;

/// The most sequences that come of it: a data set that is drawn seldom makes others come again and
/// again until it has been taken whole.
const MIXED_MAX: f64 = (1 << 24) as f64;

/// When no more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixEnd {
    /// With the first data set of which all is taken.
    FirstExhausted,
    /// Once all is taken of every data set; those that end earlier begin anew.
    AllExhausted,
}

/// How data sets are put together where they are not joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// When no more is taken.
    pub end: MixEnd,
    /// How often each data set is taken from, above 0 and 1 in all; where it is empty they take
    /// turns.
    pub probabilities: Vec<f64>,
}

/// A sequence, by its data set and its number there.
pub type MixedPlace = (usize, usize);

impl Mix {
    /// What is taken one after the other of data sets with so many sequences. Which data set is
    /// next is drawn by `seed`.
    ///
    /// # Errors
    /// Where a data set has no sequence, or too many would come of it.
    pub fn order(&self, lengths: &[usize], seed: u64) -> Result<Vec<MixedPlace>, String> {
        if let Some(empty) = lengths.iter().position(|length| *length == 0) {
            return Err(format!("data set {} has no sequence", empty + 1));
        }
        let expected = self.expected(lengths);
        if expected > MIXED_MAX {
            return Err(format!(
                "about {expected:.0} sequences would come of it, more than {MIXED_MAX:.0}: take \
                 fewer rows of the large data sets (max_samples), or give them larger shares"
            ));
        }
        match self.probabilities.is_empty() {
            true => Ok(self.in_turns(lengths)),
            false => Ok(self.drawn(lengths, seed)),
        }
    }

    /// About how many sequences come of it.
    fn expected(&self, lengths: &[usize]) -> f64 {
        let count = lengths.len() as f64;
        let draws = lengths.iter().enumerate().map(|(set, length)| {
            let share = self.probabilities.get(set).copied();
            *length as f64 / share.unwrap_or(1.0 / count)
        });
        match self.end {
            MixEnd::FirstExhausted => draws.fold(f64::INFINITY, f64::min),
            MixEnd::AllExhausted => draws.fold(0.0, f64::max),
        }
    }

    fn in_turns(&self, lengths: &[usize]) -> Vec<MixedPlace> {
        let rounds = match self.end {
            MixEnd::FirstExhausted => lengths.iter().min(),
            MixEnd::AllExhausted => lengths.iter().max(),
        };
        let round = |round: usize| {
            let places = lengths.iter().enumerate();
            places.map(move |(set, length)| (set, round % length))
        };
        (0..rounds.copied().unwrap_or(0)).flat_map(round).collect()
    }

    fn drawn(&self, lengths: &[usize], seed: u64) -> Vec<MixedPlace> {
        let mut next = vec![0; lengths.len()];
        let mut is_exhausted = vec![false; lengths.len()];
        let mut order = Vec::new();
        for draw in 0.. {
            let is_over = match self.end {
                MixEnd::FirstExhausted => is_exhausted.contains(&true),
                MixEnd::AllExhausted => !is_exhausted.contains(&false),
            };
            if is_over {
                break;
            }
            let set = self.set(hash(seed, draw));
            order.push((set, next[set]));
            next[set] += 1;
            if next[set] == lengths[set] {
                is_exhausted[set] = true;
                next[set] = 0;
            }
        }
        order
    }

    /// The data set of a random number.
    fn set(&self, bits: u64) -> usize {
        // 53 bits are exact in f64.
        let at = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let mut below = 0.0;
        let found = self.probabilities.iter().position(|share| {
            below += share;
            at < below
        });
        // Shares may add up to a little less than 1.
        found.unwrap_or(self.probabilities.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(end: MixEnd, probabilities: &[f64], lengths: &[usize], seed: u64) -> Vec<MixedPlace> {
        let mix = Mix {
            end,
            probabilities: probabilities.to_vec(),
        };
        mix.order(lengths, seed).unwrap()
    }

    /// The examples in the documentation of `interleave_datasets`, with 0, 10, 20 and so on.
    #[test]
    fn turns_are_those_of_hugging_face() {
        let numbers = |end, lengths: &[usize]| {
            let order = order(end, &[], lengths, 1);
            let number = |(set, index): MixedPlace| 10 * set + index;
            order.into_iter().map(number).collect::<Vec<usize>>()
        };
        assert_eq!(
            numbers(MixEnd::FirstExhausted, &[3, 3, 4]),
            [0, 10, 20, 1, 11, 21, 2, 12, 22]
        );
        assert_eq!(
            numbers(MixEnd::AllExhausted, &[3, 3, 5]),
            [0, 10, 20, 1, 11, 21, 2, 12, 22, 0, 10, 23, 1, 11, 24]
        );
    }

    #[test]
    fn draws_follow_the_shares_and_end_where_they_must() {
        let shares = [0.7, 0.3];
        let under = order(MixEnd::FirstExhausted, &shares, &[700, 3_000], 5);
        let of = |order: &[MixedPlace], set| order.iter().filter(|place| place.0 == set).count();
        // The smaller one is taken whole, and the last that was taken is its last.
        assert_eq!(of(&under, 0), 700);
        assert_eq!(under.last(), Some(&(0, 699)));
        assert!((240..360).contains(&of(&under, 1)), "{}", of(&under, 1));
        let over = order(MixEnd::AllExhausted, &shares, &[70, 300], 5);
        assert_eq!(over.last(), Some(&(1, 299)));
        for (set, length) in [70, 300].into_iter().enumerate() {
            // Each in its order, over and over.
            let indices = over.iter().filter(|place| place.0 == set);
            let indices: Vec<usize> = indices.map(|place| place.1).collect();
            assert!(indices.len() >= length);
            assert!((0..).zip(&indices).all(|(i, index)| i % length == *index));
        }
        assert_eq!(over, order(MixEnd::AllExhausted, &shares, &[70, 300], 5));
        assert_ne!(over, order(MixEnd::AllExhausted, &shares, &[70, 300], 6));
    }

    #[test]
    fn what_would_not_end_soon_is_refused() {
        let mix = Mix {
            end: MixEnd::AllExhausted,
            probabilities: vec![1e-6, 1.0 - 1e-6],
        };
        let error = mix.order(&[100, 100], 1).unwrap_err();
        assert!(error.contains("about 100000000 sequences"), "{error}");
        let error = mix.order(&[1, 0], 1).unwrap_err();
        assert!(error.contains("data set 2 has no sequence"), "{error}");
    }
}
