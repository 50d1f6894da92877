//! A tokenizer of the 256 bytes. The tests of the command line take it, too.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// A tokenizer of the 256 bytes, `<s>` = 256 in front, and `</s>` = 257 as the end.
pub fn write_tokenizer(folder: &Path) {
    let vocab: Map<String, Value> = (0..=255u8)
        .map(|byte| (byte_name(byte).to_string(), Value::from(byte)))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": false});
    let tokenizer = json!({
        "version": "1.0",
        // Both must be ignored: a data set is cut by its own rule.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst",
                       "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [special(256, "<s>"), special(257, "</s>"), special(258, "<|im_start|>"),
                         special(259, "<|im_end|>")],
        "normalizer": null, "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
        },
        "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"eos_token": {"content": "</s>"}}).to_string();
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
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
