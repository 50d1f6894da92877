//! What the files beside `tokenizer.json` say about a tokenizer, as transformers 5 reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::TextError;
use crate::tokenizer_class::TokenizerClass;

/// What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say, and the
/// kind of model that `config.json` names.
///
/// Most keys change nothing where there is a `tokenizer.json`: `add_bos_token`, `add_eos_token`,
/// `model_max_length`, `padding_side` and the like are settings of calls, or of
/// tokenizers that are made from other files. Those that would change a text are used, or refused
/// by their names.
#[derive(Debug, Default)]
pub struct TokenizerConfig {
    path: PathBuf,
    config: Map<String, Value>,
    /// Tokens with flags, which override those of `tokenizer.json`.
    added: Vec<AddedToken>,
    /// Tokens of `added_tokens.json`, where it counts.
    older: Vec<String>,
    /// `config.json`: a kind of model, and the class that it may name.
    model_type: Option<String>,
    model_class: Option<String>,
}

impl TokenizerConfig {
    /// Reads the files of a folder, as far as it has them.
    ///
    /// # Errors
    /// [`TextError::Io`] or [`TextError::Json`] naming the file.
    pub fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer_config.json");
        let mut config = object(&path)?.unwrap_or_default();
        // A file that lists the added tokens here lists all of them: older files are not read.
        let mut older = Map::new();
        if !config.contains_key("added_tokens_decoder") {
            let map = object(&folder.join("special_tokens_map.json"))?;
            merge(&mut config, map.unwrap_or_default());
            older = object(&folder.join("added_tokens.json"))?.unwrap_or_default();
        }
        // Errors in it are reported where the model is read.
        let model = object(&folder.join("config.json")).ok().flatten();
        let model = model.unwrap_or_default();
        let text = |key: &str| model.get(key).and_then(Value::as_str).map(str::to_string);
        Ok(Self {
            older: older.into_iter().map(|(token, _)| token).collect(),
            model_type: text("model_type"),
            model_class: text("tokenizer_class"),
            ..Self::of(path, config)?
        })
    }

    /// The same from the bytes of `tokenizer_config.json` alone.
    ///
    /// # Errors
    /// [`TextError::Json`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        let path = Path::new("tokenizer_config.json");
        let config = serde_json::from_slice(bytes).map_err(TextError::json(path))?;
        Self::of(path.to_path_buf(), config)
    }

    fn of(path: PathBuf, config: Map<String, Value>) -> Result<Self, TextError> {
        let listed = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object);
        let added = listed.into_iter().flat_map(|list| list.values());
        Ok(Self {
            added: added.filter_map(added_token).collect(),
            path,
            config,
            ..Self::default()
        })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A key of `tokenizer_config.json`.
    pub fn get(&self, key: &str) -> &Value {
        self.config.get(key).unwrap_or(&Value::Null)
    }

    /// The text of a named token.
    pub fn token(&self, name: &str) -> Option<String> {
        content(self.get(name))
    }

    /// All named tokens, such as `bos_token`, for templates.
    pub fn named_tokens(&self) -> BTreeMap<String, String> {
        let own = self
            .config
            .iter()
            .filter(|(key, _)| key.ends_with("_token"));
        let extra = ["extra_special_tokens", "model_specific_special_tokens"];
        let extra = extra
            .into_iter()
            .filter_map(|key| self.get(key).as_object());
        let all = own.chain(extra.flatten());
        all.filter_map(|(name, token)| Some((name.clone(), content(token)?)))
            .collect()
    }

    /// Tokens with their flags, as far as the files list them.
    pub fn added_tokens(&self) -> &[AddedToken] {
        &self.added
    }

    /// The class by which transformers builds the tokenizer, if it does not take `tokenizer.json`
    /// as it is.
    pub fn class(&self, is_byte_level: bool) -> Option<TokenizerClass> {
        let named = self.get("tokenizer_class").as_str();
        let named = named.or(self.model_class.as_deref());
        TokenizerClass::of(named, self.model_type.as_deref(), is_byte_level)
    }

    /// All its keys.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Tokens that the files name, each with the key: added ones, though `tokenizer.json` may
    /// have them as ordinary ones. All that have a name are special.
    pub fn more_tokens(&self) -> Vec<(&str, AddedToken)> {
        let special = |token: &Value| {
            Some(AddedToken {
                special: true,
                ..added_token(token)?
            })
        };
        // `fill_token` is an infilling mark of Code Llama, which stands for two texts and is no
        // token.
        let is_name = |key: &str| key.ends_with("_token") && key != "fill_token";
        let mut named: Vec<(&str, &Value)> = Vec::new();
        named.extend(
            self.config
                .iter()
                .filter(|(key, _)| is_name(key))
                .map(|(k, v)| (&**k, v)),
        );
        let key = match self.get("extra_special_tokens") {
            Value::Array(list) if !list.is_empty() => "extra_special_tokens",
            Value::Object(map) if !map.is_empty() => "extra_special_tokens",
            _ => "additional_special_tokens",
        };
        for key in [key, "model_specific_special_tokens"] {
            match self.get(key) {
                Value::Array(list) => named.extend(list.iter().map(|token| (key, token))),
                Value::Object(map) => named.extend(map.values().map(|token| (key, token))),
                _ => {}
            }
        }
        let mut tokens: Vec<(&str, AddedToken)> = named
            .into_iter()
            .filter_map(|(key, token)| Some((key, special(token)?)))
            .collect();
        let older = self.older.iter().map(|text| {
            let is_special = tokens.iter().any(|(_, token)| token.content == *text);
            (
                "added_tokens.json",
                AddedToken::from(text.clone(), is_special),
            )
        });
        let older: Vec<_> = older.collect();
        tokens.extend(older);
        tokens.retain(|(_, token)| !token.content.is_empty());
        tokens
    }

    /// Added tokens that are not special and yet control a chat.
    pub fn control_tokens(&self) -> Vec<String> {
        let list = self.get("chat_control_tokens").as_array();
        list.into_iter().flatten().filter_map(content).collect()
    }

    /// Whether special tokens within a text are read as text.
    pub fn splits_special_tokens(&self) -> bool {
        self.get("split_special_tokens") == &Value::Bool(true)
    }

    /// Refuses settings that would change tokens or their texts and are not supported here. `model`
    /// is the kind of model in `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] naming the key.
    pub fn check(&self, model: Option<&str>) -> Result<(), TextError> {
        let is_on = |key: &str| self.get(key) == &Value::Bool(true);
        let corrupts = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
        let other_file = |file: &Value| file != "tokenizer.json";
        let reason = if is_on("clean_up_tokenization_spaces") && model.is_some_and(|m| m != "BPE") {
            "`clean_up_tokenization_spaces` takes spaces out of answers, which is not done here: \
             set it to false"
        } else if is_on("clean_up_tokenization_spaces") && is_on(corrupts) {
            "the cleaning of spaces would corrupt answers: set `clean_up_tokenization_spaces` to \
             false"
        } else if is_on("fix_mistral_regex") {
            "`fix_mistral_regex` changes how texts are cut, and tokenizer.json does not say so: \
             save the tokenizer again with the right tokenizer.json"
        } else if self
            .get("fast_tokenizer_files")
            .as_array()
            .is_some_and(|f| f.iter().any(other_file))
        {
            "`fast_tokenizer_files` names other files than tokenizer.json: keep the one that is \
             right as tokenizer.json, and leave the key out"
        } else if !self.get("auto_map")["AutoTokenizer"].is_null() {
            "`auto_map` names a tokenizer with code of its own, which is not run here: leave the \
             key out if tokenizer.json is the whole tokenizer"
        } else {
            return Ok(());
        };
        Err(TextError::Tokenizer {
            path: self.path.clone(),
            reason: reason.to_string(),
        })
    }
}

/// A token with its flags.
fn added_token(token: &Value) -> Option<AddedToken> {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    // A bare name is one of a special token.
    let is_special = flag("special").unwrap_or(token.is_string());
    Some(AddedToken {
        content: content(token)?,
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!is_special),
        special: is_special,
    })
}

/// A token: a string, or an object with `content`.
fn content(token: &Value) -> Option<String> {
    let content = token.get("content").unwrap_or(token);
    content.as_str().map(str::to_string)
}

fn object(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(TextError::io("read", path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(TextError::json(path))
}

/// Puts what `special_tokens_map.json` says over the rest.
fn merge(config: &mut Map<String, Value>, map: Map<String, Value>) {
    for (key, value) in map {
        let own = config.get(&key).and_then(Value::as_array);
        let value = match (key.as_str(), own, &value) {
            ("extra_special_tokens", Some(own), Value::Array(more)) => {
                let new = more.iter().filter(|token| !own.contains(token));
                own.iter().chain(new).cloned().collect()
            }
            _ => value,
        };
        config.insert(key, value);
    }
}
