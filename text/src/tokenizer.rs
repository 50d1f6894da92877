//! Text to token ids and back, by the `tokenizer.json` of a model folder.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::TextError;
use crate::spelling::Spelling;
use crate::stream::TokenStream;

/// The tokenizer of a model. Special tokens are added as its `tokenizer.json` says
/// (its post-processor); settings of `tokenizer_config.json` do not change that.
#[derive(Debug)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    spelling: Spelling,
    special: BTreeSet<u32>,
    bos: Option<String>,
    eos: Option<String>,
    eos_ids: Vec<u32>,
}

impl TextTokenizer {
    /// Opens `tokenizer.json` of a folder, and takes the end-of-text token from its
    /// `tokenizer_config.json` where there is one.
    ///
    /// # Errors
    /// [`TextError::Io`], [`TextError::Tokenizer`] or [`TextError::Json`] naming the file.
    pub fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(TextError::io("read", &path))?;
        let config = folder.join("tokenizer_config.json");
        let config_bytes = match config.is_file() {
            true => Some(fs::read(&config).map_err(TextError::io("read", &config))?),
            false => None,
        };
        Self::load(
            path,
            &bytes,
            config_bytes.as_deref().map(|bytes| (&*config, bytes)),
        )
    }

    /// The same from the bytes of the two files.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] or [`TextError::Json`] naming the file.
    pub fn from_bytes(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&[u8]>,
    ) -> Result<Self, TextError> {
        let config = tokenizer_config_json.map(|json| (Path::new("tokenizer_config.json"), json));
        Self::load("tokenizer.json".into(), tokenizer_json, config)
    }

    fn load(
        path: PathBuf,
        bytes: &[u8],
        config: Option<(&Path, &[u8])>,
    ) -> Result<Self, TextError> {
        let fail = |reason: String| TextError::Tokenizer {
            path: path.clone(),
            reason,
        };
        // The library panics where the JSON breaks off within some of its parts.
        let json: DecoderOnly = serde_json::from_slice(bytes).map_err(TextError::json(&path))?;
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(bytes)).map_err(fail)?;
        // A file may carry the cut and the padding of its training; here both are the caller's.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        let config: Value = match config {
            Some((path, json)) => serde_json::from_slice(json).map_err(TextError::json(path))?,
            None => Value::Null,
        };
        let eos = token_name(&config, "eos_token");
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special);
        Ok(Self {
            special: special.map(|(id, _)| *id).collect(),
            spelling: Spelling::of(&json.decoder),
            bos: token_name(&config, "bos_token"),
            eos_ids: eos
                .iter()
                .filter_map(|token| tokenizer.token_to_id(token))
                .collect(),
            eos,
            path,
            tokenizer,
        })
    }

    /// Token ids of `text`; with `add_special`, framed as the tokenizer frames a text.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        // The variant that keeps no offsets into the text.
        let encoding = guarded(|| self.tokenizer.encode_fast(text, add_special));
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| self.fail(reason))
    }

    /// The text of token ids; with `skip_special`, without special tokens. Bytes that are no
    /// UTF-8 come as U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        guarded(|| self.tokenizer.decode(ids, skip_special)).map_err(|reason| self.fail(reason))
    }

    /// A decoder for ids that come one by one, with special tokens left out.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// Tokens that the tokenizer knows, added ones too.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens that end a text, by `tokenizer_config.json`; may be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The name of the token that begins a text, by `tokenizer_config.json`.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The name of the token that ends a text, by `tokenizer_config.json`.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// Whether a token is left out of texts for people: the end of a text, the start of a turn.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The id of a token by its exact name in `tokenizer.json`.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The exact bytes of a token within a text; of a special token, its name. A token may hold a
    /// part of a character. Empty for an id that the tokenizer lacks.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match self.tokenizer.id_to_token(id) {
            None => Vec::new(),
            Some(name) if self.is_special(id) => name.into_bytes(),
            Some(name) => self.spelling.bytes(&name),
        }
    }

    /// [`Self::token_bytes`] as text; what is no UTF-8 comes as U+FFFD.
    pub fn token_text(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.token_bytes(id)).into_owned()
    }

    pub(crate) fn library(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    /// Refuses a tokenizer that has ids beyond the `vocab` rows of the model's embedding.
    ///
    /// # Errors
    /// [`TextError::TokenizerMismatch`] naming the lowest such token.
    pub fn check(&self, vocab: usize) -> Result<(), TextError> {
        let tokens = self.tokenizer.get_vocab(true);
        let beyond = tokens.into_iter().map(|(token, id)| (id, token));
        match beyond.filter(|(id, _)| *id as usize >= vocab).min() {
            None => Ok(()),
            Some((id, token)) => Err(TextError::TokenizerMismatch {
                path: self.path.clone(),
                token,
                id,
                vocab,
            }),
        }
    }

    fn fail(&self, reason: String) -> TextError {
        TextError::Tokenizer {
            path: self.path.clone(),
            reason,
        }
    }
}

/// The part of `tokenizer.json` that says how tokens spell bytes.
#[derive(serde::Deserialize)]
struct DecoderOnly {
    #[serde(default)]
    decoder: Value,
}

/// Calls the library; its panics, which a `tokenizer.json` with a special token that its own map
/// lacks can still cause, become errors.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // The library's caches hold text and ids only: a panic leaves them old, never wrong.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer contradicts itself; download it again".to_string()),
    }
}

/// A token in `tokenizer_config.json`: a string, or an object with `content`.
fn token_name(config: &Value, key: &str) -> Option<String> {
    let token = config.get(key)?;
    let content = token.get("content").unwrap_or(token);
    content.as_str().map(str::to_string)
}
