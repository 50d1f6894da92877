//! `tokenizer.ggml.pre`: the name of the rule by which a text is cut before pairs are merged. A
//! GGUF file has only the name, so the rules are here.

use serde_json::{Value, json};

/// How a text is cut before pairs are merged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PreTokenizer {
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    /// Whether a piece that is a token is taken as it is, without merges.
    pub(crate) ignores_merges: bool,
    /// Whether a text begins with the BOS token, by default.
    pub(crate) adds_bos: bool,
}

/// Words with the character before them, numbers of up to three digits, runs of punctuation, white
/// space.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// As [`LLAMA_3`], with every digit on its own.
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Words by their capitals, with endings such as 's.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|",
    r"'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|",
    r"'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|",
    r"\s+(?!\S)|\s+",
);

/// As [`GPT_4O`], without endings, and with every digit on its own.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The names that are known, for messages.
pub(crate) const KNOWN: &str = "llama-bpe, llama3, llama-v3, dbrx, smaug-bpe, qwen2, \
    deepseek-r1-qwen, gpt-4o, llama4, tekken, gpt-2, phi-2, olmo, smollm, starcoder";

/// The rule of a name, if it is known.
pub(crate) fn named(name: &str) -> Option<PreTokenizer> {
    let plain = |pre_tokenizer: Value| PreTokenizer {
        normalizer: Value::Null,
        pre_tokenizer,
        ignores_merges: false,
        adds_bos: false,
    };
    Some(match name {
        "llama-bpe" | "llama3" | "llama-v3" => PreTokenizer {
            ignores_merges: true,
            adds_bos: true,
            ..plain(by(LLAMA_3))
        },
        "dbrx" | "smaug-bpe" => plain(by(LLAMA_3)),
        "qwen2" | "deepseek-r1-qwen" => PreTokenizer {
            normalizer: json!({"type": "NFC"}),
            ..plain(by(QWEN_2))
        },
        "gpt-4o" | "llama4" => plain(by(GPT_4O)),
        "tekken" => PreTokenizer {
            ignores_merges: true,
            adds_bos: true,
            ..plain(by(TEKKEN))
        },
        "gpt-2" | "phi-2" | "olmo" => plain(bytes(true)),
        "smollm" | "starcoder" => plain(json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, bytes(true)
        ]})),
        _ => return None,
    })
}

fn by(rule: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": false},
        bytes(false)
    ]})
}

/// Maps bytes to characters, and cuts by the rule of GPT-2 where `by_rule` is true.
pub(crate) fn bytes(by_rule: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
           "use_regex": by_rule})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_has_a_rule() {
        for name in KNOWN.split(',') {
            assert!(named(name.trim()).is_some(), "{name}");
        }
        assert_eq!(named("default"), None);
    }
}
