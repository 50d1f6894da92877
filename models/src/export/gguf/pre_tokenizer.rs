//! How a text is cut before pairs are merged: the name that llama.cpp has for it.

use serde_json::Value;

use crate::weights::{PRE_TOKENIZERS, PreTokenizer, pre_tokenizer};

/// The parts of a rule that decide where a text is cut; nothing where a part is not known.
fn cuts(value: &Value) -> Option<Vec<String>> {
    let part = |text: String| Some(vec![text]);
    match value["type"].as_str() {
        None if value.is_null() => Some(Vec::new()),
        Some("Sequence") => {
            let parts = value["pretokenizers"].as_array()?;
            let parts: Option<Vec<Vec<String>>> = parts.iter().map(cuts).collect();
            Some(parts?.concat())
        }
        Some("Split") => {
            let is_isolated = value["behavior"] == "Isolated" && value["invert"] != true;
            let is_removed = value["behavior"] == "Removed" && value["invert"] == true;
            let rule = value["pattern"]["Regex"].as_str()?;
            (is_isolated || is_removed).then(|| vec![format!("by {rule}")])
        }
        Some("Digits") => part(format!("digits {}", value["individual_digits"])),
        Some("ByteLevel") if value["add_prefix_space"] != true => {
            part(format!("bytes {}", value["use_regex"] != false))
        }
        _ => None,
    }
}

/// How a tokenizer of bytes cuts and joins a text.
pub(super) struct ByteRule<'a> {
    pub(super) normalizer: &'a Value,
    pub(super) pre_tokenizer: &'a Value,
    /// Whether whole words are tokens without merges.
    pub(super) ignores_merges: bool,
    pub(super) has_merges: bool,
}

impl ByteRule<'_> {
    /// Its name; `None` where no name stands for it.
    pub(super) fn name(&self) -> Option<String> {
        let cuts_of_model = cuts(self.pre_tokenizer)?;
        let normal = self.normalizer["type"].as_str();
        // Where nothing is joined, it is the same wherever a text is cut.
        let is_never_joined = !self.has_merges && !self.ignores_merges;
        let is_it = |known: &PreTokenizer| {
            (is_never_joined || cuts(&known.pre_tokenizer).as_ref() == Some(&cuts_of_model))
                && known.normalizer["type"].as_str() == normal
                && known.ignores_merges == self.ignores_merges
        };
        let mut names = PRE_TOKENIZERS.split(',').map(str::trim);
        let found = names.find(|name| pre_tokenizer(name).as_ref().is_some_and(is_it));
        found.map(str::to_string)
    }
}

/// Why a rule is refused.
pub(super) fn unknown() -> String {
    format!(
        "how its tokenizer cuts a text has no name in GGUF that is known here ({PRE_TOKENIZERS}): \
         convert the folder that `concord merge` writes with llama.cpp's own converter"
    )
}

/// Whether SentencePiece puts a space before a text.
pub(super) fn adds_space(normalizer: &Value, rule: &Value) -> bool {
    let mut parts = vec![normalizer, rule];
    while let Some(part) = parts.pop() {
        match part["type"].as_str() {
            Some("Prepend") => return true,
            Some("Metaspace") => return part["prepend_scheme"] != "never",
            Some("Sequence") => {
                for key in ["normalizers", "pretokenizers"] {
                    parts.extend(part[key].as_array().into_iter().flatten());
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_rule_has_its_name_back() {
        for known in PRE_TOKENIZERS.split(',').map(str::trim) {
            let rule = pre_tokenizer(known).unwrap();
            let named = ByteRule {
                normalizer: &rule.normalizer,
                pre_tokenizer: &rule.pre_tokenizer,
                ignores_merges: rule.ignores_merges,
                has_merges: true,
            };
            let found = pre_tokenizer(&named.name().unwrap()).unwrap();
            assert_eq!(found.pre_tokenizer, rule.pre_tokenizer, "{known}");
        }
        let [spaces, bytes] = [json!({"type": "Whitespace"}), json!({"type": "ByteLevel"})];
        let none = Value::Null;
        let of = |pre_tokenizer, has_merges| ByteRule {
            normalizer: &none,
            pre_tokenizer,
            ignores_merges: false,
            has_merges,
        };
        assert_eq!(of(&spaces, true).name(), None);
        let digits = json!({"type": "Sequence", "pretokenizers": [bytes, bytes]});
        assert_eq!(of(&digits, true).name(), None);
        assert!(of(&digits, false).name().is_some(), "nothing is joined");
    }

    #[test]
    fn spaces_before_a_text() {
        let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend"}]});
        assert!(adds_space(&prepend, &Value::Null));
        let never = json!({"type": "Metaspace", "prepend_scheme": "never"});
        assert!(!adds_space(&Value::Null, &never));
        assert!(!adds_space(&Value::Null, &Value::Null));
    }
}
