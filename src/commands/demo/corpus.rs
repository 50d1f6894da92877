//! The text that the demo's model learns: short sentences that follow a rule.

use concord_kernels::rng::Philox;

/// First words of sentences. They differ in their first letters, so that there is little to learn.
const COUNTS: [&str; 5] = ["Two", "Five", "Seven", "Eight", "Nine"];

/// Subject and result of a sentence: the second follows from the first.
const WORK: [(&str, &str); 4] = [
    ("machines", "model"),
    ("workers", "hash"),
    ("checkers", "proof"),
    ("friends", "answer"),
];

/// The prompt that the model continues before and after the training.
pub const PROMPT: &str = "Seven";

/// A sentence, such as "Seven workers, one hash."
fn sentence(count: &str, (who, what): (&str, &str)) -> String {
    format!("{count} {who}, one {what}.")
}

/// `count` sentences, drawn with `seed`, with a space between two.
pub fn text(count: u64, seed: u64) -> String {
    let draws = Philox::new(seed, 0);
    let sentence = |index| {
        let [first, second, ..] = draws.words(index);
        sentence(
            COUNTS[first as usize % COUNTS.len()],
            WORK[second as usize % WORK.len()],
        )
    };
    (0..count).map(sentence).collect::<Vec<_>>().join(" ")
}

/// How many whole sentences in `text` follow the rule.
pub fn sentences(text: &str) -> usize {
    let right = |part: &str| {
        let all = COUNTS
            .iter()
            .flat_map(|count| WORK.map(|work| sentence(count, work)));
        all.into_iter()
            .any(|sentence| sentence == format!("{}.", part.trim()))
    };
    text.split_inclusive('.')
        .filter_map(|part| part.strip_suffix('.'))
        .filter(|p| right(p))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_of_the_text_is_right() {
        let text = text(50, 7);
        assert_eq!(sentences(&text), 50, "{text}");
        assert_ne!(text, super::text(50, 8));
    }

    #[test]
    fn what_breaks_the_rule_does_not_count() {
        let text = "Seven workers, one hash. Seven workers, one proof. Six friends, one ans";
        assert_eq!(sentences(text), 1);
    }
}
