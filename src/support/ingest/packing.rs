//! Packing: short examples share a sequence. No token sees one of another example, and positions
//! begin anew in each, so that an example's loss is the same as alone, bit for bit.

use std::collections::{BTreeMap, VecDeque};

use concord_proto::TrainingSequence;

/// Puts examples into sequences of at most `len` tokens: best fit, longest first. A sequence has
/// its examples in their order, and stands where its first one stood.
pub fn packed(examples: Vec<TrainingSequence>, len: usize) -> Vec<TrainingSequence> {
    let mut places: Vec<Vec<usize>> = bins(&examples, len);
    places.iter_mut().for_each(|place| place.sort_unstable());
    places.sort_unstable();
    let mut examples: Vec<Option<TrainingSequence>> = examples.into_iter().map(Some).collect();
    let mut join = |place: Vec<usize>| {
        let mut all = TrainingSequence::default();
        let parts = place.into_iter().filter_map(|index| examples[index].take());
        parts.for_each(|example| all.append(example));
        all
    };
    places.into_iter().map(&mut join).collect()
}

/// What is to be said of so many examples in these sequences.
pub fn words(examples: u64, packed: &[TrainingSequence], len: usize) -> String {
    let tokens: usize = packed.iter().map(|sequence| sequence.tokens.len()).sum();
    let full = 100.0 * tokens as f64 / (packed.len() * len).max(1) as f64;
    format!(
        "sample_packing: {examples} examples in {} sequences of {len} tokens, which they fill to \
         {full:.1} %",
        packed.len()
    )
}

/// Which examples share a sequence. Of examples of one length the first is placed first, and of
/// sequences with the same room left the one that was opened first takes it.
fn bins(examples: &[TrainingSequence], len: usize) -> Vec<Vec<usize>> {
    let size = |&index: &usize| examples[index].tokens.len();
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(size(index)));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    let mut with_room: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for index in order {
        let size = size(&index);
        let fits = with_room.range(size..).next().map(|(&room, _)| room);
        let room = fits.unwrap_or(len);
        let bin = match fits.and_then(|room| take(&mut with_room, room)) {
            Some(bin) => bin,
            None => {
                bins.push(Vec::new());
                bins.len() - 1
            }
        };
        bins[bin].push(index);
        let left = room.saturating_sub(size);
        if left > 0 {
            with_room.entry(left).or_default().push_back(bin);
        }
    }
    bins
}

/// Takes the first sequence with so much room.
fn take(with_room: &mut BTreeMap<usize, VecDeque<usize>>, room: usize) -> Option<usize> {
    let same = with_room.get_mut(&room)?;
    let bin = same.pop_front();
    if same.is_empty() {
        with_room.remove(&room);
    }
    bin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: u32, len: usize) -> TrainingSequence {
        let mut mask = vec![1; len];
        mask[0] = 0;
        TrainingSequence::whole(vec![id; len], mask)
    }

    #[test]
    fn the_best_fit_shares_a_sequence_and_order_is_kept() {
        let lengths = [3, 9, 2, 10, 5, 1, 4];
        let examples = (0..).zip(lengths).map(|(id, len)| example(id, len));
        let packed = packed(examples.collect(), 10);
        let documents: Vec<Vec<u32>> = packed.iter().map(|one| one.documents.clone()).collect();
        assert_eq!(documents, [vec![3, 2], vec![9, 1], vec![10], vec![5, 4]]);
        let first: Vec<u32> = packed.iter().map(|one| one.tokens[0]).collect();
        assert_eq!(first, [0, 1, 3, 4]);
    }

    #[test]
    fn every_example_is_there_once_and_no_sequence_is_too_long() {
        let lengths = (0..500).map(|i| 1 + i * i * 7 % 63);
        let examples: Vec<_> = (0..)
            .zip(lengths)
            .map(|(id, len)| example(id, len))
            .collect();
        let packed = packed(examples, 64);
        assert!(packed.iter().all(|one| one.tokens.len() <= 64));
        let seen: usize = packed.iter().map(|one| one.documents.len()).sum();
        assert_eq!(seen, 500);
        // No two sequences would fit into one: else the later one would have been put there.
        let mut lengths: Vec<usize> = packed.iter().map(|one| one.tokens.len()).collect();
        lengths.sort_unstable();
        assert!(lengths[0] + lengths[1] > 64, "{lengths:?}");
    }
}
