//! Tokenizers that transformers 5 builds by a class of its own from the vocabulary and the merges
//! of a `tokenizer.json`: the class says how a text is cut, whatever the file says.

use serde_json::{Map, Value, json};

/// How Qwen 2 cuts a text.
const QWEN2_CUT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A class with parts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerClass {
    Llama,
    CodeLlama,
    Qwen2,
    Gpt2,
}

impl TokenizerClass {
    /// The class that transformers takes; `None` where it reads `tokenizer.json` as it is. The
    /// class `named` is used unless the model type has one that overrides it.
    pub fn of(named: Option<&str>, model_type: Option<&str>, is_byte_level: bool) -> Option<Self> {
        let own = match model_type {
            Some("qwen2" | "qwen3") => Some(Self::Qwen2),
            // Their files are taken as they are.
            Some("llama") | None => None,
            Some(_) => return None,
        };
        let named = named.map(|name| name.strip_suffix("Fast").unwrap_or(name));
        let class = match (named, model_type) {
            (_, Some("qwen2")) | (None, _) => own?,
            (Some("LlamaTokenizer"), _) => Self::Llama,
            (Some("CodeLlamaTokenizer"), _) => Self::CodeLlama,
            (Some("Qwen2Tokenizer"), _) => Self::Qwen2,
            (Some("GPT2Tokenizer"), _) => Self::Gpt2,
            (Some(_), _) => return None,
        };
        let fits = match class {
            // Llama 3 is byte-level, and is named so all the same.
            Self::Llama => !is_byte_level,
            Self::CodeLlama => true,
            // With another vocabulary these would lose all spaces.
            Self::Qwen2 | Self::Gpt2 => is_byte_level,
        };
        fits.then_some(class)
    }

    /// Special tokens that it has where the files name none.
    pub fn tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Llama => &[
                ("unk_token", "<unk>"),
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
            ],
            Self::CodeLlama => &[
                ("unk_token", "<unk>"),
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("prefix_token", "\u{2581}<PRE>"),
                ("middle_token", "\u{2581}<MID>"),
                ("suffix_token", "\u{2581}<SUF>"),
                ("eot_token", "\u{2581}<EOT>"),
            ],
            Self::Qwen2 => &[
                ("unk_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("pad_token", "<|endoftext|>"),
            ],
            Self::Gpt2 => &[
                ("unk_token", "<|endoftext|>"),
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
            ],
        }
    }

    /// Puts its parts into a `tokenizer.json`. The decoder stays the file's: it is the spelling of
    /// the tokens, which is read without the files beside it.
    pub fn put_into(self, file: &mut Map<String, Value>, config: &Map<String, Value>) {
        let truth = |key: &str| config.get(key).filter(|value| !value.is_null());
        let adds_space = |default: bool| {
            truth("add_prefix_space").map_or(default, |value| value != &Value::Bool(false))
        };
        let metaspace = |scheme: &str| {
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme,
                   "split": false})
        };
        let bytes = |cuts: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": adds_space(false),
                   "trim_offsets": true, "use_regex": cuts})
        };
        let (normalizer, pre_tokenizer) = match self {
            Self::Llama => {
                let scheme = match (adds_space(true), truth("legacy")) {
                    (false, _) => "never",
                    (true, Some(Value::Bool(true))) => "always",
                    (true, _) => "first",
                };
                (Value::Null, metaspace(scheme))
            }
            Self::CodeLlama => {
                let scheme = if adds_space(true) { "first" } else { "never" };
                (Value::Null, metaspace(scheme))
            }
            Self::Qwen2 => {
                let cut = json!({"type": "Split", "pattern": {"Regex": QWEN2_CUT},
                                 "behavior": "Isolated", "invert": false});
                let parts = json!({"type": "Sequence", "pretokenizers": [cut, bytes(false)]});
                (json!({"type": "NFC"}), parts)
            }
            Self::Gpt2 => (Value::Null, bytes(true)),
        };
        file.insert("normalizer".to_string(), normalizer);
        file.insert("pre_tokenizer".to_string(), pre_tokenizer);
        if let Some(model) = file.get_mut("model").and_then(Value::as_object_mut) {
            self.put_into_model(model, config);
        }
    }

    fn put_into_model(self, model: &mut Map<String, Value>, config: &Map<String, Value>) {
        let falls_back = matches!(self, Self::Llama | Self::CodeLlama);
        let text = |token: &Value| token.get("content").unwrap_or(token).clone();
        let unknown = match self {
            Self::CodeLlama => config.get("unk_token").map_or("<unk>".into(), text),
            _ => Value::Null,
        };
        let parts = [
            ("dropout", Value::Null),
            ("unk_token", unknown),
            ("continuing_subword_prefix", Value::Null),
            ("end_of_word_suffix", Value::Null),
            ("fuse_unk", falls_back.into()),
            ("byte_fallback", falls_back.into()),
            ("ignore_merges", false.into()),
        ];
        for (key, value) in parts {
            model.insert(key.to_string(), value);
        }
    }
}

/// Whether a part of a `tokenizer.json`, or one within it, is of the kind `ByteLevel`.
pub fn is_byte_level(part: &Value) -> bool {
    let within = ["pretokenizers", "decoders"].map(|key| part.get(key).and_then(Value::as_array));
    part.get("type").is_some_and(|kind| kind == "ByteLevel")
        || within.into_iter().flatten().flatten().any(is_byte_level)
}
