//! Turns the tokenizer of a GGUF file into a `tokenizer.json` and a `tokenizer_config.json`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::container::GgufFile;
use super::tokenizer_pre::{self, PreTokenizer};
use super::values::{GgufList, GgufValue};
use crate::error::ModelError;

/// Most tokens that are accepted, as many as rows of an embedding.
const TOKENS_MAX: u64 = 1 << 21;

/// The longest token that is cut in two at every place: beyond it this would take too long. Those
/// of SentencePiece have up to 16 characters, but for runs of white space.
const CUT_MAX: usize = 512;

/// What a space is in a vocabulary of SentencePiece.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens (`tokenizer.ggml.token_type`).
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// `tokenizer.json` and `tokenizer_config.json`.
///
/// # Errors
/// [`ModelError::UnusableKey`] naming the key.
pub(super) fn of(file: &GgufFile) -> Result<[Value; 2], ModelError> {
    let vocabulary = Vocabulary::read(file)?;
    let config = vocabulary.config()?;
    let whole = "tokenizer.huggingface.json";
    if let Some(value) = file.get(whole) {
        let parsed = value
            .text()
            .and_then(|text| serde_json::from_str(text).ok());
        let parsed = parsed.ok_or_else(|| file.bad_key(whole, "it must be a tokenizer.json"))?;
        return Ok([parsed, config]);
    }
    let kind = file.get("tokenizer.ggml.model").and_then(GgufValue::text);
    let parts = match kind {
        Some("llama") => vocabulary.sentence_pieces()?,
        Some("gpt2") => vocabulary.byte_level()?,
        _ => {
            let reason = "of the tokenizers of GGUF `llama` and `gpt2` are read: put the model's \
                          tokenizer.json beside the file, and name the folder as the model";
            return Err(file.bad_key("tokenizer.ggml.model", reason));
        }
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": vocabulary.frame(parts.adds_bos, parts.post_processor)?,
        "decoder": parts.decoder,
        "model": parts.model,
    });
    Ok([tokenizer, config])
}

/// The parts of a tokenizer that differ between its kinds.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Value,
    /// Whether a text begins with the BOS token, by default.
    adds_bos: bool,
}

struct Vocabulary<'a> {
    file: &'a GgufFile,
    tokens: Vec<&'a str>,
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a GgufFile) -> Result<Self, ModelError> {
        let key = "tokenizer.ggml.tokens";
        let list = list(file, key)?.ok_or_else(|| {
            let reason = "without it there is no tokenizer: put the model's tokenizer.json beside \
                          the file, and name the folder as the model";
            file.bad_key(key, reason)
        })?;
        if list.len() > TOKENS_MAX {
            return Err(file.bad_key(key, format!("{TOKENS_MAX} tokens are the most")));
        }
        let mut tokens = Vec::new();
        for (id, value) in list.values().enumerate() {
            let bad = || file.bad_key(key, format!("token {id} is no text of UTF-8"));
            tokens.push(value.text().ok_or_else(bad)?);
        }
        let key = "tokenizer.ggml.token_type";
        let kinds = match self::list(file, key)? {
            None => vec![1; tokens.len()],
            Some(list) => list
                .values()
                .map(|value| value.whole().unwrap_or(0))
                .collect(),
        };
        if kinds.len() != tokens.len() {
            return Err(file.bad_key(key, format!("there are {} tokens", tokens.len())));
        }
        Ok(Self {
            file,
            tokens,
            kinds,
        })
    }

    /// The id and the text of the token that a key names.
    fn named(&self, key: &str) -> Result<Option<(u64, &'a str)>, ModelError> {
        let key = format!("tokenizer.ggml.{key}");
        let Some(value) = self.file.get(&key) else {
            return Ok(None);
        };
        let id = value.whole();
        let token = id.and_then(|id| self.tokens.get(usize::try_from(id).ok()?));
        match id.zip(token) {
            Some((id, token)) => Ok(Some((id, token))),
            None => {
                let reason = format!("there are {} tokens", self.tokens.len());
                Err(self.file.bad_key(&key, reason))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        let key = format!("tokenizer.ggml.{key}");
        match self.file.get(&key) {
            None => Ok(None),
            Some(GgufValue::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.file.bad_key(&key, "it must be true or false")),
        }
    }

    fn config(&self) -> Result<Value, ModelError> {
        let mut config = Map::new();
        for (key, name) in [
            ("bos_token_id", "bos_token"),
            ("eos_token_id", "eos_token"),
            ("unknown_token_id", "unk_token"),
            ("padding_token_id", "pad_token"),
        ] {
            if let Some((_, token)) = self.named(key)? {
                config.insert(name.to_string(), json!(token));
            }
        }
        let mut templates = Vec::new();
        let main = "tokenizer.chat_template";
        for key in self.file.keys() {
            let name = match key.strip_prefix(main) {
                Some("") => "default",
                Some(rest) if rest.starts_with('.') => &rest[1..],
                _ => continue,
            };
            let text = self.file.get(key).and_then(GgufValue::text);
            let text = text.ok_or_else(|| self.file.bad_key(key, "it must be a text"))?;
            templates.push(json!({"name": name, "template": text}));
        }
        match templates.as_slice() {
            [] => {}
            [one] if one["name"] == "default" => {
                config.insert("chat_template".to_string(), one["template"].clone());
            }
            _ => {
                config.insert("chat_template".to_string(), Value::Array(templates));
            }
        }
        Ok(Value::Object(config))
    }

    /// The added tokens: those that are matched in a text before it is cut and merged.
    fn added(&self) -> Vec<Value> {
        let all = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = all.filter(|(_, (_, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind));
        added
            .map(|(id, (token, kind))| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": *kind != USER_DEFINED})
            })
            .collect()
    }

    fn ids(&self) -> Result<BTreeMap<&'a str, usize>, ModelError> {
        let mut ids = BTreeMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = ids.insert(*token, id) {
                let reason = format!("tokens {first} and {id} have the same text");
                return Err(self.file.bad_key("tokenizer.ggml.tokens", reason));
            }
        }
        Ok(ids)
    }

    /// The post-processor: `before`, then the tokens at the start and the end of a text.
    fn frame(&self, adds_bos: bool, before: Value) -> Result<Value, ModelError> {
        let mut special = Map::new();
        let mut single = Vec::new();
        let mut put = |single: &mut Vec<Value>, (id, token): (u64, &str)| {
            single.push(json!({"SpecialToken": {"id": token, "type_id": 0}}));
            special.insert(
                token.to_string(),
                json!({"id": token, "ids": [id], "tokens": [token]}),
            );
        };
        let bos = self.named("bos_token_id")?;
        if let Some(bos) =
            bos.filter(|_| matches!(self.flag("add_bos_token"), Ok(None)) && adds_bos)
        {
            put(&mut single, bos);
        }
        if self.flag("add_bos_token")? == Some(true) {
            let missing = || {
                self.file
                    .bad_key("tokenizer.ggml.bos_token_id", "it must be there")
            };
            put(&mut single, bos.ok_or_else(missing)?);
        }
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        if self.flag("add_eos_token")? == Some(true) {
            let missing = || {
                self.file
                    .bad_key("tokenizer.ggml.eos_token_id", "it must be there")
            };
            put(
                &mut single,
                self.named("eos_token_id")?.ok_or_else(missing)?,
            );
        }
        if single.len() == 1 {
            return Ok(before);
        }
        let pair = [
            single.clone(),
            vec![json!({"Sequence": {"id": "B", "type_id": 0}})],
        ]
        .concat();
        let template = json!({"type": "TemplateProcessing", "single": single, "pair": pair,
                              "special_tokens": special});
        Ok(match before {
            Value::Null => template,
            before => json!({"type": "Sequence", "processors": [before, template]}),
        })
    }

    /// The merges of SentencePiece, with a fallback to bytes for characters that are in no piece.
    fn sentence_pieces(&self) -> Result<Parts, ModelError> {
        let ids = self.ids()?;
        let merges = match list(self.file, "tokenizer.ggml.merges")? {
            Some(list) => self.merges(list)?,
            None => self.merges_by_score(&ids)?,
        };
        let unknown = self.named("unknown_token_id")?.map(|(_, token)| token);
        let first = || self.kinds.iter().position(|kind| *kind == UNKNOWN);
        let unknown = unknown.or_else(|| Some(self.tokens[first()?]));
        let has_bytes = ids.contains_key("<0x00>");
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let is_prefixed = self.flag("add_space_prefix")?.unwrap_or(true);
        let mut normalizers = vec![space];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if is_prefixed {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(Parts {
            normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
            pre_tokenizer: Value::Null,
            post_processor: Value::Null,
            decoder: json!({"type": "Sequence", "decoders": decoders}),
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": unknown,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": has_bytes, "ignore_merges": false, "vocab": ids, "merges": merges,
            }),
            adds_bos: true,
        })
    }

    /// Every pair of tokens whose concatenation is a token, best score of the result first. Merging
    /// in this order is what SentencePiece does.
    fn merges_by_score(
        &self,
        ids: &BTreeMap<&'a str, usize>,
    ) -> Result<Vec<[&'a str; 2]>, ModelError> {
        let key = "tokenizer.ggml.scores";
        let scores = list(self.file, key)?;
        let scores = scores.filter(|scores| scores.len() == self.tokens.len() as u64);
        let scores = scores
            .ok_or_else(|| self.file.bad_key(key, "each token must have a score"))?
            .values();
        let mut merges = Vec::new();
        for ((id, token), score) in self.tokens.iter().enumerate().zip(scores) {
            let GgufValue::Float32(score) = score else {
                return Err(self.file.bad_key(key, "scores must be f32"));
            };
            if score.is_nan() {
                return Err(self
                    .file
                    .bad_key(key, format!("the score of token {id} is NaN")));
            }
            if token.len() > CUT_MAX {
                let reason = format!(
                    "token {id} has {} bytes; where pairs are found by scores {CUT_MAX} are the \
                     most: put the model's tokenizer.json beside the file, and name the folder as \
                     the model",
                    token.len()
                );
                return Err(self.file.bad_key("tokenizer.ggml.tokens", reason));
            }
            let cuts = token.char_indices().skip(1);
            let pairs = cuts.map(|(at, _)| token.split_at(at));
            let mut pairs: Vec<_> = pairs
                .filter_map(|(l, r)| Some((ids.get(l)?, ids.get(r)?, l, r)))
                .collect();
            pairs.sort_unstable();
            let count = |text: &str| text.chars().count();
            merges.extend(
                pairs
                    .iter()
                    .map(|(_, _, l, r)| (score, count(l), count(r), *l, *r)),
            );
        }
        // The sort is stable: among equal scores, the pair of the earlier token comes first.
        merges.sort_by(|a, b| {
            (b.0.total_cmp(&a.0))
                .then(b.1.cmp(&a.1))
                .then(b.2.cmp(&a.2))
        });
        Ok(merges.into_iter().map(|(_, _, _, l, r)| [l, r]).collect())
    }

    /// The merges as the file lists them: `left right`.
    fn merges(&self, list: GgufList<'a>) -> Result<Vec<[&'a str; 2]>, ModelError> {
        let pairs = list.values().enumerate().map(|(i, value)| {
            let pair = value.text().and_then(|text| text.split_once(' '));
            pair.map(|(left, right)| [left, right]).ok_or_else(|| {
                let reason = format!("merge {i} is no pair of tokens");
                self.file.bad_key("tokenizer.ggml.merges", reason)
            })
        });
        pairs.collect()
    }

    /// The byte-level merges of GPT-2, whose bytes are written as characters.
    fn byte_level(&self) -> Result<Parts, ModelError> {
        let key = "tokenizer.ggml.pre";
        let name = self.file.get(key).and_then(GgufValue::text);
        let PreTokenizer {
            normalizer,
            pre_tokenizer,
            ignores_merges,
            adds_bos,
        } = name.and_then(tokenizer_pre::named).ok_or_else(|| {
            let reason = format!(
                "how this vocabulary cuts a text is not known; known are {}: put the model's \
                 tokenizer.json beside the file, and name the folder as the model",
                tokenizer_pre::KNOWN
            );
            self.file.bad_key(key, reason)
        })?;
        let key = "tokenizer.ggml.merges";
        let merges = list(self.file, key)?;
        let merges = merges.ok_or_else(|| self.file.bad_key(key, "it must be there"))?;
        Ok(Parts {
            normalizer,
            pre_tokenizer,
            post_processor: tokenizer_pre::bytes(false),
            decoder: tokenizer_pre::bytes(true),
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": ignores_merges, "vocab": self.ids()?,
                "merges": self.merges(merges)?,
            }),
            adds_bos,
        })
    }
}

fn list<'a>(file: &'a GgufFile, key: &str) -> Result<Option<GgufList<'a>>, ModelError> {
    match file.get(key) {
        None => Ok(None),
        Some(GgufValue::List(list)) => Ok(Some(list)),
        Some(_) => Err(file.bad_key(key, "it must be a list")),
    }
}
