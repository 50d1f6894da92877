//! Data sets that alternate: what is taken of each.

use concord_data::{DatasetSource, MixedPlace};
use concord_proto::TrainingSequence;
use serde_json::{Value, json};

use super::told::Told;

/// The sequences of several data sets, the first `ends[0]` of which are the first data set's, in
/// this order.
pub fn mixed<'a>(
    sequences: &'a [TrainingSequence],
    ends: &'a [usize],
    order: &'a [MixedPlace],
) -> impl Iterator<Item = &'a TrainingSequence> {
    let start = |set: usize| set.checked_sub(1).map_or(0, |before| ends[before]);
    let places = order.iter().map(move |(set, index)| start(*set) + index);
    places.map(|place| &sequences[place])
}

/// How many sequences each of the data sets has, of which there are as many as `ends`.
pub fn lengths(ends: &[usize]) -> Vec<usize> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    ends.iter()
        .zip(starts)
        .map(|(end, start)| end - start)
        .collect()
}

/// A note on what is taken of each data set.
pub fn told(sources: &[DatasetSource], order: &[MixedPlace]) -> Told {
    let (words, sets) = taken(sources, order);
    Told::event(
        words,
        json!({ "event": "mix", "sequences": order.len(), "sets": sets }),
    )
}

/// The same in words, and each data set as an object.
pub fn taken(sources: &[DatasetSource], order: &[MixedPlace]) -> (String, Vec<Value>) {
    let (mut words, mut sets) = (Vec::new(), Vec::new());
    for (set, source) in sources.iter().enumerate() {
        let indices = || {
            order
                .iter()
                .filter(|place| place.0 == set)
                .map(|place| place.1)
        };
        let (count, distinct) = (
            indices().count(),
            indices().max().map_or(0, |last| last + 1),
        );
        let path = source.path.display().to_string();
        let again = match count - distinct {
            0 => String::new(),
            again => format!(", {again} of them again"),
        };
        words.push(format!("{count} of {path}{again}"));
        sets.push(json!({ "path": path, "sequences": count, "distinct": distinct }));
    }
    let words = format!(
        "data sets alternate: {} sequences, {}",
        order.len(),
        words.join("; ")
    );
    (words, sets)
}

#[cfg(test)]
mod tests {
    use concord_data::{DatasetKind, Mix, MixEnd};

    use super::*;

    #[test]
    fn what_is_taken_of_each_is_told() {
        let mix = Mix {
            end: MixEnd::AllExhausted,
            probabilities: Vec::new(),
        };
        let ends = [2, 5];
        let order = mix.order(&lengths(&ends), 1).unwrap();
        let sequences: Vec<_> = (0..5)
            .map(|id| TrainingSequence::whole(vec![id], vec![0]))
            .collect();
        let first = mixed(&sequences, &ends, &order).map(|one| one.tokens[0]);
        let first: Vec<u32> = first.collect();
        assert_eq!(first, [0, 2, 1, 3, 0, 4]);
        let sources = ["a", "b"].map(|path| DatasetSource::new(path, DatasetKind::Completion));
        let (words, sets) = taken(&sources, &order);
        assert_eq!(
            words,
            "data sets alternate: 6 sequences, 3 of a, 1 of them again; 3 of b"
        );
        assert_eq!(
            (&sets[0]["distinct"], &sets[1]["distinct"]),
            (&2.into(), &3.into())
        );
    }
}
