//! The bound on what a token stands for, against the tokenizers themselves.

use concord_text::TextTokenizer;
use serde_json::{Value, json};

use crate::fixtures::{SHARED_MODELS, byte_level, shared};

/// Texts that give many tokens, or few.
fn texts() -> Vec<String> {
    let pieces = [
        "a",
        " ",
        "ab ",
        "Once upon a time",
        "\n",
        "\t \n",
        "\u{2581}",
        "\u{2581}\u{2581}",
        "e\u{301}",
        "\u{390}",
        "\u{1D7D8}",
        "\u{FF21}\u{FF22}",
        "\u{212A}",
        "<s>",
        "</s>",
        "<0x0A>",
        "\u{1F600}",
        "\u{AC00}\u{11A8}",
        "\u{0}",
        "0123456789",
        "the the the ",
        "\u{3000}\u{3000}",
        "  ",
    ];
    let repeated = pieces.iter().map(|piece| piece.repeat(200));
    let pairs = pieces
        .iter()
        .flat_map(|a| pieces.iter().map(move |b| format!("{a}{b}").repeat(20)));
    repeated
        .chain(pairs)
        .chain([String::new(), pieces.concat()])
        .collect()
}

fn holds(tokenizer: &TextTokenizer, what: &str) {
    let width = tokenizer.token_width().expect(what);
    for text in texts() {
        let tokens = tokenizer.encode(&text, false).unwrap();
        let least = width.least_tokens(&text);
        assert!(
            least <= tokens.len(),
            "{what}: {text:?} has {} tokens",
            tokens.len()
        );
    }
    // The bound is one: a long text has many tokens.
    assert!(width.least_tokens(&"ab ".repeat(10_000)) > 50, "{what}");
}

#[test]
fn no_text_has_fewer_tokens_than_the_bound_says() {
    for model in SHARED_MODELS {
        if let Some(folder) = shared(&format!("models/{model}")) {
            holds(&TextTokenizer::open(&folder).unwrap(), model);
        }
    }
}

/// A tokenizer of bytes, changed in one place.
fn changed(pointer: &str, value: Value) -> TextTokenizer {
    let mut file = byte_level(&[("<s>", true), ("<|long added token|>", false)], &[]);
    *file.pointer_mut(pointer).expect(pointer) = value;
    TextTokenizer::from_bytes(file.to_string().as_bytes(), None).unwrap()
}

#[test]
fn normalizers_and_spaces_that_tokens_swallow_are_counted_for() {
    let sequence =
        json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]});
    for (pointer, value) in [
        ("/normalizer", Value::Null),
        ("/normalizer", json!({"type": "NFC"})),
        ("/normalizer", json!({"type": "NFKC"})),
        ("/normalizer", json!({"type": "NFKD"})),
        ("/normalizer", json!({"type": "Lowercase"})),
        ("/normalizer", sequence),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"String": "the "}, "content": "t"}),
        ),
        ("/added_tokens/0/rstrip", json!(true)),
        ("/added_tokens/0/lstrip", json!(true)),
    ] {
        holds(
            &changed(pointer, value.clone()),
            &format!("{pointer} {value}"),
        );
    }
}

#[test]
fn a_tokenizer_that_drops_letters_has_no_bound() {
    let regex = json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "});
    for (pointer, value) in [
        (
            "/normalizer",
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        ),
        ("/normalizer", regex),
        ("/pre_tokenizer", json!({"type": "Whitespace"})),
        ("/pre_tokenizer", Value::Null),
    ] {
        let tokenizer = changed(pointer, value.clone());
        assert_eq!(tokenizer.token_width(), None, "{pointer} {value}");
    }
}
