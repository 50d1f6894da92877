//! A tokenizer for models that are made here.

use serde_json::{Map, Value, json};

const BYTES: u32 = 256;

/// Letters of a filler word of the vocabulary.
const LETTERS: u32 = 4;

/// The smallest vocabulary, and the largest number of filler words.
pub const VOCAB_MIN: u32 = BYTES + 2;
const WORDS_MAX: u32 = 26_u32.pow(LETTERS);

/// The tokens that begin and end a text.
pub const ENDS: [u32; 2] = [BYTES, BYTES + 1];

/// A `tokenizer.json` of the 256 bytes, followed by `<s>` and `</s>`, and then by filler words,
/// which no text is tokenized to but which can be drawn. `None` where the vocabulary is too small
/// or too large.
pub fn tokenizer(vocab: u32) -> Option<Value> {
    let words = vocab.checked_sub(VOCAB_MIN)?;
    if words > WORDS_MAX {
        return None;
    }
    let byte = |byte: u8| (byte_name(byte).to_string(), Value::from(byte));
    let mut pieces: Map<String, Value> = (0..=255).map(byte).collect();
    pieces.extend((0..words).map(|index| (word(index), Value::from(VOCAB_MIN + index))));
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        })
    };
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    Some(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(ENDS[0], "<s>"), special(ENDS[1], "</s>")],
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": pieces, "merges": [],
        },
    }))
}

/// The filler word with this index: a blank and some letters.
fn word(index: u32) -> String {
    let letter = |place: u32| {
        let rest = index / 26_u32.pow(place) % 26;
        char::from(b'a' + rest as u8)
    };
    let letters = (0..LETTERS).rev().map(letter);
    std::iter::once(byte_name(b' ')).chain(letters).collect()
}

/// The character for a byte in byte-level tokenizers: itself where it is printable, else the next
/// one from U+0100 on.
fn byte_name(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !is_printable(*byte)).count();
    u32::try_from(before)
        .ok()
        .and_then(|count| char::from_u32(0x100 + count))
        .unwrap_or('?')
}
