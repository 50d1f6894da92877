//! Texts that end an answer, compared with a naive search.

use concord_text::StopTexts;
use proptest::prelude::*;

/// What must come out: the text up to the stop text that ends first, the longest one there.
fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    for end in ends {
        let found = (0..stops.len()).filter(|i| !stops[*i].is_empty());
        let found = found.filter(|i| text[..end].ends_with(&stops[*i]));
        let longest = found.max_by_key(|i| (stops[*i].len(), usize::MAX - i));
        if let Some(index) = longest {
            return (text[..end - stops[index].len()].to_string(), Some(index));
        }
    }
    (text.to_string(), None)
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

#[test]
fn nothing_of_a_stop_text_leaks() {
    let mut stops = StopTexts::new(strings(&["\nUser:", "END"]));
    let mut given = String::new();
    for piece in ["Hi", "\nUs", "e \nU", "s", "er", ": x", "more"] {
        let stopped = stops.push(piece);
        given += &stopped.emit;
        assert!(!given.contains("\nUser"), "{given:?}");
        if stopped.hit.is_some() {
            assert_eq!(stopped.hit, Some(0));
            break;
        }
    }
    assert_eq!(given, "Hi\nUse ");
    assert_eq!(stops.push("more").emit, "");
    assert_eq!(stops.finish(), "");
}

#[test]
fn what_waits_comes_at_the_end() {
    let mut stops = StopTexts::new(strings(&["", "</s>"]));
    assert_eq!(stops.push("a</").emit, "a");
    assert_eq!(stops.finish(), "</");
}

/// What is given out of pieces, of which those in brackets are names of special tokens.
fn given(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
    let mut watch = StopTexts::new(strings(stops));
    let (mut text, mut hit) = (String::new(), None);
    for piece in pieces {
        let stopped = match piece.strip_prefix('[') {
            Some(name) => watch.push_hidden(name.trim_end_matches(']')),
            None => watch.push(piece),
        };
        text += &stopped.emit;
        hit = stopped.hit;
        if hit.is_some() {
            break;
        }
    }
    (text + &watch.finish(), hit)
}

#[test]
fn names_of_special_tokens_are_seen_and_no_part_of_the_answer() {
    let is = |stops: &[&str], pieces: &[&str], text: &str, hit: Option<usize>| {
        assert_eq!(
            given(stops, pieces),
            (text.to_string(), hit),
            "{stops:?} {pieces:?}"
        );
    };
    is(&[], &["a", "[</s>]", "b"], "ab", None);
    is(&["</s>"], &["a", "[</s>]", "b"], "a", Some(0));
    is(
        &["x", "</s>\nUser:"],
        &["a", "[</s>]", "\nUs", "er: c"],
        "a",
        Some(1),
    );
    is(
        &["</s>\nUser:"],
        &["a", "[</s>]", "\nUse", "d"],
        "a\nUsed",
        None,
    );
    is(&["a</s>"], &["ba", "[</s>]"], "b", Some(0));
    is(&["a</s>"], &["ba", "[<s>]", "c"], "bac", None);
    // A stop text with the name of a special token in the middle, which people do not see.
    is(&["ab"], &["x", "a", "[</s>]", "b", "c"], "x", Some(0));
    is(&["ab"], &["a", "[</s>]", "c"], "ac", None);
    // Half of a name is no name.
    is(&["s>"], &["a", "[</s>]", "b"], "a", Some(0));
    is(&["</s>"], &["</", "s>", "b"], "", Some(0));
    is(&["</s>x"], &["a", "[</s>]"], "a", None);
}

proptest! {
    #[test]
    fn as_the_plain_way(
        pieces in prop::collection::vec("[ab\u{E9}]{0,4}", 0..12),
        stops in prop::collection::vec("[ab\u{E9}]{0,4}", 0..4),
    ) {
        let mut watch = StopTexts::new(stops.clone());
        let (mut given, mut hit) = (String::new(), None);
        let expected = naive(&pieces.concat(), &stops);
        for piece in &pieces {
            let stopped = watch.push(piece);
            given += &stopped.emit;
            prop_assert!(expected.0.starts_with(&given));
            hit = stopped.hit;
            if hit.is_some() {
                break;
            }
        }
        given += &watch.finish();
        prop_assert_eq!((given, hit), expected);
    }
}
