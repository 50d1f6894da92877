//! How much text one token can stand for. With it, a text that is too long for a model is refused
//! by its length, before it is tokenized.

use std::collections::BTreeSet;

use serde_json::Value;
use tokenizers::ModelWrapper;

use crate::tokenizer::TextTokenizer;

/// How much larger a text can be than what Unicode normalization makes of it: a mathematical digit
/// of four bytes becomes one of one byte. No normalization form shrinks a text more.
const NORMALIZED_MAX: usize = 4;

/// The most text that one token of a tokenizer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenWidth {
    /// Bytes of a text.
    bytes: usize,
    /// Whether spaces beside some tokens belong to them, however many there are.
    swallows_space: bool,
}

impl TokenWidth {
    /// The least number of tokens that a text can have.
    pub fn least_tokens(&self, text: &str) -> usize {
        let bytes = match self.swallows_space {
            false => text.len(),
            true => {
                let stays = text.chars().filter(|letter| !letter.is_whitespace());
                stays.map(char::len_utf8).sum()
            }
        };
        bytes.div_ceil(self.bytes)
    }
}

impl TextTokenizer {
    /// The most text that one of its tokens stands for. `None` where there is no bound, because the
    /// tokenizer drops letters, or has one token for many letters that it does not know. It looks
    /// at every token, so call it once.
    pub fn token_width(&self) -> Option<TokenWidth> {
        let library = self.library();
        let part = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
        let normalizer = library.get_normalizer();
        let shrinks = match normalizer.map(|own| part(serde_json::to_value(own))) {
            None => 1,
            Some(own) => shrinks(&own)?,
        };
        let splitter = library.get_pre_tokenizer();
        let splitter = splitter.map_or(Value::Null, |own| part(serde_json::to_value(own)));
        if splitter != Value::Null && !keeps_all(&splitter) {
            return None;
        }
        let vocab = library.get_vocab(true);
        let names: BTreeSet<&str> = vocab.keys().map(String::as_str).collect();
        let ModelWrapper::BPE(model) = library.get_model() else {
            return None;
        };
        let in_bytes = is_byte_level(&splitter);
        let knows_all = match in_bytes {
            // Each byte has a letter of its own, and a token.
            true => byte_letters().all(|letter| names.contains(letter.to_string().as_str())),
            false => {
                let byte = |byte: u8| names.contains(format!("<0x{byte:02X}>").as_str());
                model.byte_fallback && (0..=u8::MAX).all(byte)
            }
        };
        if !knows_all {
            return None;
        }
        let width = |name: &str| match in_bytes {
            true => name.chars().count(),
            false => name.len(),
        };
        let added = library.get_added_tokens_decoder();
        let strips = added.values().any(|token| token.lstrip || token.rstrip);
        // Added tokens are found in the text as they are.
        let added = added.values().map(|token| token.content.len());
        let widest = names.iter().map(|name| width(name)).chain(added).max()?;
        Some(TokenWidth {
            bytes: widest.max(1) * shrinks,
            swallows_space: strips,
        })
    }
}

/// How many times larger a text can be than what a normalizer makes of it. `None` where it may drop
/// letters.
fn shrinks(normalizer: &Value) -> Option<usize> {
    let list = |name: &str| normalizer[name].as_array();
    match normalizer["type"].as_str()? {
        "Sequence" => list("normalizers")?.iter().map(shrinks).product(),
        "Prepend" | "ByteLevel" => Some(1),
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" => Some(NORMALIZED_MAX),
        "Replace" => {
            let pattern = normalizer["pattern"]["String"].as_str()?;
            let content = normalizer["content"].as_str()?;
            let is_dropped = content.is_empty() || pattern.is_empty();
            (!is_dropped).then(|| pattern.len().div_ceil(content.len()))
        }
        _ => None,
    }
}

/// Whether what splits a text leaves nothing of it out.
fn keeps_all(splitter: &Value) -> bool {
    match splitter["type"].as_str() {
        Some("Sequence") => {
            let parts = splitter["pretokenizers"].as_array();
            parts.is_some_and(|parts| parts.iter().all(keeps_all))
        }
        Some("Split" | "Punctuation") => splitter["behavior"] != "Removed",
        Some("ByteLevel" | "Metaspace" | "Digits" | "UnicodeScripts") => true,
        _ => false,
    }
}

fn is_byte_level(splitter: &Value) -> bool {
    match splitter["type"].as_str() {
        Some("Sequence") => {
            let parts = splitter["pretokenizers"].as_array();
            parts.is_some_and(|parts| parts.iter().any(is_byte_level))
        }
        kind => kind == Some("ByteLevel"),
    }
}

/// The letters that stand for the 256 bytes: printable ones for themselves, then others.
fn byte_letters() -> impl Iterator<Item = char> {
    let is_own = |byte: &u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=255_u32).filter(is_own);
    let others = (0..=255_u32).filter(|byte| !is_own(byte)).count() as u32;
    let all = own.chain(0x100..0x100 + others);
    all.filter_map(char::from_u32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(behavior: &str) -> Value {
        json!({"type": "Split", "pattern": {"String": "a"}, "behavior": behavior})
    }

    #[test]
    fn every_byte_has_one_letter() {
        let letters: BTreeSet<char> = byte_letters().collect();
        assert_eq!(letters.len(), 256);
        assert!(letters.contains(&'\u{120}') && letters.contains(&'!'));
    }

    #[test]
    fn normalizers_that_may_drop_letters_have_no_bound() {
        fn replace(pattern: Value, content: &str) -> Value {
            json!({"type": "Replace", "pattern": pattern, "content": content})
        }
        let kind = |name: &str| json!({"type": name});
        let cases = [
            (kind("NFC"), Some(4)),
            (kind("Prepend"), Some(1)),
            (replace(json!({"String": " "}), "\u{2581}"), Some(1)),
            (replace(json!({"String": "abc"}), "x"), Some(3)),
            (replace(json!({"String": "abc"}), ""), None),
            (replace(json!({"Regex": " +"}), " "), None),
            (kind("Strip"), None),
            (kind("StripAccents"), None),
            (kind("BertNormalizer"), None),
            (kind("Precompiled"), None),
            (
                json!({"type": "Sequence", "normalizers": [kind("NFKC"), kind("Lowercase")]}),
                Some(16),
            ),
            (
                json!({"type": "Sequence", "normalizers": [kind("NFKC"), kind("Nmt")]}),
                None,
            ),
        ];
        for (normalizer, expected) in cases {
            assert_eq!(shrinks(&normalizer), expected, "{normalizer}");
        }
    }

    #[test]
    fn splitters_that_drop_letters_have_no_bound() {
        let kind = |name: &str| json!({"type": name});
        let sequence = |parts: Value| json!({"type": "Sequence", "pretokenizers": parts});
        let kept = [
            split("Isolated"),
            kind("ByteLevel"),
            kind("Metaspace"),
            sequence(json!([split("MergedWithNext"), kind("ByteLevel")])),
        ];
        let dropped = [
            split("Removed"),
            kind("Whitespace"),
            kind("BertPreTokenizer"),
            kind("CharDelimiterSplit"),
            sequence(json!([kind("WhitespaceSplit"), kind("ByteLevel")])),
        ];
        assert!(kept.iter().all(keeps_all));
        assert!(!dropped.iter().any(keeps_all));
    }
}
