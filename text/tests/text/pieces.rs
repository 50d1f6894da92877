//! Texts in pieces give the tokens of the whole, or are not cut.

use concord_text::{Pieces, TextTokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{SHARED_MODELS, byte_level, shared, tokenizer};

/// What breaks tokenizers: spaces of every kind, words, digits, marks, added tokens and halves of
/// them.
const PARTS: [&str; 36] = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "a",
    "Once upon a time",
    "e",
    "don't",
    "'s",
    "'",
    "I'll ",
    "x y",
    " the",
    "the ",
    "\u{2581}",
    "a\u{2581}b",
    "</s>",
    "<s>",
    "</s",
    " </s> ",
    "12345",
    "3 ",
    "...",
    ". ",
    "-",
    "\u{4f60}\u{597d} \u{4e2d}",
    "\u{431}\u{443}\u{43a}\u{432}\u{430} ",
    "e\u{301}",
    "\u{301} ",
    "\u{1f468}\u{200d}\u{1f469}",
    "\u{ac00} \u{ac01}",
    "\u{a0}",
    "\u{200b}",
    "Q A",
];

fn same_as_the_whole(tokenizer: &TextTokenizer, text: &str) {
    for special in [false, true] {
        let whole = tokenizer.encode(text, special).unwrap();
        for bytes in [1, 2, 3, 7, 16, 50] {
            let (mut done, mut calls) = (0, 0);
            let pieces = tokenizer.pieces(bytes);
            let ids = pieces.encode(text, special, &mut |bytes| {
                done += bytes;
                calls += 1;
            });
            assert_eq!(ids.unwrap(), whole, "{text:?} in pieces of {bytes}");
            assert_eq!(done, text.len(), "{text:?}");
            assert!(calls <= 1 + text.len() / bytes, "{calls} pieces of {bytes}");
            if special {
                assert_eq!(
                    streamed(&pieces, text),
                    whole,
                    "{text:?} as a stream of {bytes}"
                );
            }
        }
    }
}

/// The tokens of a text that comes in parts of one to four characters.
fn streamed(pieces: &Pieces, text: &str) -> Vec<u32> {
    let (mut stream, mut ids) = (pieces.stream(), Vec::new());
    let letters: Vec<char> = text.chars().collect();
    let mut rest = letters.as_slice();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at((1 + rest.len() % 4).min(rest.len()));
        let part: String = part.iter().collect();
        stream.push(&part, &mut |more| ids.extend(more)).unwrap();
        rest = behind;
    }
    stream.finish(&mut |more| ids.extend(more)).unwrap();
    ids
}

/// Tokenizers made here whose texts are cut: with a pattern, without one, with a few merges.
fn made() -> Vec<(&'static str, TextTokenizer)> {
    // One merge puts a space behind a letter: there, no text of one word may be cut.
    let merges = [
        ("t", "h"),
        ("th", "e"),
        ("\u{120}", "the"),
        ("o", "n"),
        ("e", "\u{120}"),
        ("\u{10a}", "\u{10a}"),
    ];
    let level = |regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": regex
        })
    };
    let pattern = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    let split = json!({
        "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false
    });
    let chain = json!({ "type": "Sequence", "pretokenizers": [split, level(false)] });
    let make = |splitter: Value, normalizer: Value| {
        let mut json = byte_level(&[("<s>", true), ("</s>", true)], &merges);
        json["pre_tokenizer"] = splitter;
        json["normalizer"] = normalizer;
        tokenizer(&json)
    };
    vec![
        ("one word", make(level(false), Value::Null)),
        ("GPT-2", make(level(true), Value::Null)),
        ("Llama 3", make(chain.clone(), Value::Null)),
        ("Qwen", make(chain, json!({ "type": "NFC" }))),
    ]
}

#[test]
fn the_tokenizers_of_the_field_are_cut() {
    for (name, tokenizer) in made() {
        let pieces = tokenizer.pieces(8);
        assert!(pieces.are_cut(), "{name}");
        let mut calls = 0;
        let text = "so the one and the other one went on and on";
        pieces.encode(text, true, &mut |_| calls += 1).unwrap();
        assert!(calls >= 4, "{name}: {calls} pieces");
        same_as_the_whole(&tokenizer, text);
    }
}

#[test]
fn what_is_not_known_is_not_cut() {
    let level = |space: bool, regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true,
            "use_regex": regex
        })
    };
    let split = json!({
        "type": "Split", "pattern": { "Regex": "a b" }, "behavior": "Isolated", "invert": false
    });
    let added = json!([{
        "id": 256, "content": "of the", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false
    }]);
    let chain = json!({ "type": "Sequence", "pretokenizers": [split, level(false, false)] });
    let spoilt: [(&str, Value); 6] = [
        ("normalizer", json!({ "type": "Lowercase" })),
        (
            "normalizer",
            json!({ "type": "Prepend", "prepend": "\u{2581}" }),
        ),
        ("pre_tokenizer", Value::Null),
        ("pre_tokenizer", level(true, true)),
        ("pre_tokenizer", chain),
        ("added_tokens", added),
    ];
    for (key, value) in spoilt {
        let mut json = byte_level(&[], &[]);
        json[key] = value.clone();
        let tokenizer = tokenizer(&json);
        assert!(!tokenizer.pieces(4).are_cut(), "{key}: {value}");
        same_as_the_whole(&tokenizer, "some of the words of the text");
    }
}

#[test]
fn the_models_of_the_reference_are_cut() {
    for name in SHARED_MODELS {
        let (Some(folder), Some(text)) = (
            shared(&format!("models/{name}")),
            shared("data/tinyshakespeare.txt"),
        ) else {
            return;
        };
        let tokenizer = TextTokenizer::open(&folder).unwrap();
        let text = std::fs::read_to_string(text).unwrap();
        let text = &text[..100_000];
        let whole = tokenizer.encode(text, true).unwrap();
        let mut calls = 0;
        let pieces = tokenizer.pieces(1_000);
        let ids = pieces.encode(text, true, &mut |_| calls += 1).unwrap();
        assert!(ids == whole && calls > 50, "{name}: {calls} pieces");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn hostile_texts(parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..40)) {
        let text = parts.concat();
        let mut tokenizers: Vec<TextTokenizer> = made().into_iter().map(|(_, made)| made).collect();
        if let Some(folder) = shared("models/tinystories-260k") {
            tokenizers.push(TextTokenizer::open(&folder).unwrap());
        }
        for tokenizer in &tokenizers {
            same_as_the_whole(tokenizer, &text);
        }
    }
}
