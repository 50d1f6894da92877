//! Text to token ids and back, by the `tokenizer.json` of a model folder.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::Tokenizer;

use crate::config::DecoderConfig;
use crate::error::ModelError;

/// The tokenizer of a model. Special tokens are added as its `tokenizer.json` says
/// (its post-processor); settings of `tokenizer_config.json` do not change that.
#[derive(Debug)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    eos: Vec<u32>,
}

impl TextTokenizer {
    /// Opens `tokenizer.json` of a folder, and takes the end-of-text token from its
    /// `tokenizer_config.json` where there is one.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] or [`ModelError::Json`] naming the file.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(ModelError::io("read", &path))?;
        let fail = |reason: String| ModelError::Tokenizer {
            path: path.clone(),
            reason,
        };
        // The library panics where the JSON breaks off within some of its parts.
        let _: IgnoredAny = serde_json::from_slice(&bytes).map_err(ModelError::json(&path))?;
        let mut tokenizer = guarded(|| Tokenizer::from_bytes(&bytes)).map_err(fail)?;
        // A file may carry the cut and the padding of its training; here both are the caller's.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        let eos = eos_token(&folder.join("tokenizer_config.json"))?
            .and_then(|token| tokenizer.token_to_id(&token))
            .into_iter()
            .collect();
        Ok(Self {
            path,
            tokenizer,
            eos,
        })
    }

    /// Token ids of `text`; with `add_special`, framed as the tokenizer frames a text.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
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
    /// [`ModelError::Tokenizer`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        guarded(|| self.tokenizer.decode(ids, skip_special)).map_err(|reason| self.fail(reason))
    }

    /// A decoder for ids that come one by one, with special tokens left out.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream {
            tokenizer: self,
            ids: Vec::new(),
            emitted: 0,
        }
    }

    /// Tokens that the tokenizer knows, added ones too.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens that end a text, by `tokenizer_config.json`; may be empty.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Refuses a tokenizer that has ids beyond the model's embedding.
    ///
    /// # Errors
    /// [`ModelError::TokenizerMismatch`] naming the lowest such token.
    pub fn check(&self, config: &DecoderConfig) -> Result<(), ModelError> {
        let vocab = self.tokenizer.get_vocab(true);
        let beyond = vocab.into_iter().map(|(token, id)| (id, token));
        match beyond.filter(|(id, _)| *id as usize >= config.vocab).min() {
            None => Ok(()),
            Some((id, token)) => Err(ModelError::TokenizerMismatch {
                path: self.path.clone(),
                token,
                id,
                vocab: config.vocab,
            }),
        }
    }

    fn fail(&self, reason: String) -> ModelError {
        ModelError::Tokenizer {
            path: self.path.clone(),
            reason,
        }
    }
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

/// The text of ids that come one by one. What it gives out is valid UTF-8 and is never taken
/// back; all of it together is the text of all ids.
///
/// A token may hold a part of a character, and some tokenizers decode a token differently at the
/// start of a text. So the ids of the last piece stay in front of the new ones, and a piece that
/// ends in U+FFFD waits for more ids.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a TextTokenizer,
    /// The ids of the last piece given out, then those that wait.
    ids: Vec<u32>,
    /// How many of `ids` have been given out.
    emitted: usize,
}

/// A character has at most four bytes, so more waiting ids than this are not one character: then
/// they really are broken, and waiting longer mends nothing.
const WAITING_MAX: usize = 8;

impl TokenStream<'_> {
    /// Takes one id, and gives the text that is now complete; often empty.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        let text = self.pending()?;
        let waiting = self.ids.len() - self.emitted;
        if text.is_empty() || (text.ends_with('\u{FFFD}') && waiting <= WAITING_MAX) {
            return Ok(String::new());
        }
        self.ids.drain(..self.emitted);
        self.emitted = self.ids.len();
        Ok(text)
    }

    /// Gives what still waits, broken characters as U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn finish(self) -> Result<String, ModelError> {
        self.pending()
    }

    fn pending(&self) -> Result<String, ModelError> {
        let before = self.tokenizer.decode(&self.ids[..self.emitted], true)?;
        let all = self.tokenizer.decode(&self.ids, true)?;
        match all.strip_prefix(&before) {
            Some(text) => Ok(text.to_string()),
            // Broken bytes changed how the ids before them decode: take the new ids alone.
            None => self.tokenizer.decode(&self.ids[self.emitted..], true),
        }
    }
}

/// `eos_token` of `tokenizer_config.json`: a string, or an object with `content`.
fn eos_token(path: &Path) -> Result<Option<String>, ModelError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(ModelError::io("read", path))?;
    let config: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(ModelError::json(path))?;
    let token = config.get("eos_token").unwrap_or(&serde_json::Value::Null);
    let content = token.get("content").unwrap_or(token);
    Ok(content.as_str().map(str::to_string))
}
