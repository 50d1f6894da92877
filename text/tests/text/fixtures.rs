//! Tokenizers made here, and the way to the real ones.

use std::fs;
use std::path::{Path, PathBuf};

use concord_text::TextTokenizer;
use serde_json::{Map, Value, json};

/// The five models of `shared/`.
pub const SHARED_MODELS: [&str; 5] = [
    "tinystories-260k",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-mistral",
    "tiny-llama31",
];

/// A path in `shared/` (`CONCORD_SHARED`, or beside the workspace), or `None` with a line that says
/// that the test was skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED")
        .map(PathBuf::from)
        .unwrap_or(beside);
    let found = shared.join(path);
    if found.exists() {
        Some(found)
    } else {
        println!(
            "skipped: {} is not there; set CONCORD_SHARED",
            found.display()
        );
        None
    }
}

/// Asserts that a message has all the parts.
pub fn says(error: impl ToString, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

/// A tokenizer of the 256 bytes, `<s>` = 256 in front, and `</s>` = 257 as the end.
pub fn write_tokenizer(folder: &Path) {
    let mut tokenizer = byte_level(&[("<s>", true), ("</s>", true)], &[]);
    // Truncation and padding must be ignored.
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 4,
        "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"eos_token": {"content": "</s>"}}).to_string();
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
}

/// The `tokenizer.json` of the 256 bytes, then tokens of `merged` (pairs of names), then `added`
/// ones (name, whether special).
pub fn byte_level(added: &[(&str, bool)], merged: &[(&str, &str)]) -> Value {
    let mut vocab: Map<String, Value> = (0..=255u8)
        .map(|byte| (byte_name(byte).to_string(), Value::from(byte)))
        .collect();
    for (left, right) in merged {
        let id = vocab.len();
        vocab.insert(format!("{left}{right}"), Value::from(id));
    }
    let first = vocab.len();
    let added: Vec<Value> = added
        .iter()
        .enumerate()
        .map(|(index, (content, special))| {
            json!({"id": first + index, "content": content, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false, "special": special})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": false});
    let merges: Vec<[&str; 2]> = merged.iter().map(|(left, right)| [*left, *right]).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges}
    })
}

/// A tokenizer of whole words with this decoder.
pub fn words(names: &[&str], decoder: Value) -> TextTokenizer {
    let vocab: Map<String, Value> = names
        .iter()
        .enumerate()
        .map(|(id, name)| (name.to_string(), Value::from(id)))
        .collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": decoder, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "?"}
    });
    tokenizer(&json)
}

/// The tokenizer of a `tokenizer.json`.
pub fn tokenizer(json: &Value) -> TextTokenizer {
    TextTokenizer::from_bytes(json.to_string().as_bytes(), None).unwrap()
}

/// The printable character that byte-level tokenizers write for a byte: itself where it is
/// printable, else the next one from U+0100 on.
fn byte_name(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        char::from(byte)
    } else {
        let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
        char::from_u32(0x100 + before).unwrap()
    }
}
