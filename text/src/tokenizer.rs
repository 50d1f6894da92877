//! Text to token ids and back, by the `tokenizer.json` of a model folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use crate::control_tokens::ControlTokens;
use crate::error::TextError;
use crate::rendered_chat::RenderedChat;
use crate::spelling::Spelling;
use crate::tokenizer_class::{TokenizerClass, is_byte_level};
use crate::tokenizer_config::TokenizerConfig;

/// The tokenizer of a model. Special tokens are added as its `tokenizer.json` says
/// (its post-processor); settings of `tokenizer_config.json` do not change that.
#[derive(Debug)]
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
    spelling: Spelling,
    /// As `tokenizer.json` has them.
    file: Added,
    /// The same with what `tokenizer_config.json` says.
    own: Added,
    control: ControlTokens,
    bos: Option<String>,
    eos: Option<String>,
    eos_ids: Vec<u32>,
    notes: Vec<String>,
}

/// Tokens that were added to the vocabulary.
#[derive(Debug, Default)]
struct Added {
    texts: BTreeMap<u32, String>,
    special: BTreeSet<u32>,
}

impl Added {
    fn of(tokenizer: &Tokenizer) -> Self {
        let tokens = tokenizer.get_added_tokens_decoder();
        let special = tokens.iter().filter(|(_, token)| token.special);
        Self {
            special: special.map(|(id, _)| *id).collect(),
            texts: tokens
                .iter()
                .map(|(id, token)| (*id, token.content.clone()))
                .collect(),
        }
    }
}

impl TextTokenizer {
    /// Opens `tokenizer.json` of a folder, and takes the end-of-text token from its
    /// `tokenizer_config.json` or `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`TextError::Io`], [`TextError::Tokenizer`] or [`TextError::Json`] naming the file.
    pub fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(TextError::io("read", &path))?;
        Self::load(path, &bytes, &TokenizerConfig::open(folder)?)
    }

    /// The same from the bytes of the two files.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] or [`TextError::Json`] naming the file.
    pub fn from_bytes(
        tokenizer_json: &[u8],
        tokenizer_config_json: Option<&[u8]>,
    ) -> Result<Self, TextError> {
        let config = tokenizer_config_json.map(TokenizerConfig::from_bytes);
        let config = config.transpose()?.unwrap_or_default();
        Self::load("tokenizer.json".into(), tokenizer_json, &config)
    }

    fn load(path: PathBuf, bytes: &[u8], config: &TokenizerConfig) -> Result<Self, TextError> {
        let fail = |reason: String| TextError::Tokenizer {
            path: path.clone(),
            reason,
        };
        // The library panics where the JSON breaks off within some of its parts.
        let json: Parts = serde_json::from_slice(bytes).map_err(TextError::json(&path))?;
        config.check(json.model.kind.as_deref())?;
        let class = config.class(json.is_byte_level());
        let class = class.filter(|_| json.model.kind.as_deref() == Some("BPE"));
        let mut tokenizer = match class {
            None => guarded(|| Tokenizer::from_bytes(bytes)),
            Some(class) => {
                let mut file = serde_json::from_slice(bytes).map_err(TextError::json(&path))?;
                class.put_into(&mut file, config.keys());
                let made = Value::Object(file).to_string();
                guarded(|| Tokenizer::from_bytes(made))
            }
        }
        .map_err(fail)?;
        // A file may have truncation and padding set from training; here both are up to the caller.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        let file = Added::of(&tokenizer);
        let more = config.more_tokens();
        let (more, notes) = with_ids(more, &tokenizer);
        let flagged = added_by(config, class, &tokenizer, more)?;
        if !flagged.is_empty() {
            guarded(|| tokenizer.add_tokens(flagged)).map_err(fail)?;
        }
        tokenizer.set_encode_special_tokens(config.splits_special_tokens());
        let own = Added::of(&tokenizer);
        let more = config.control_tokens();
        let control = own.texts.iter().filter(|(id, text)| {
            !config.splits_special_tokens() && (own.special.contains(id) || more.contains(text))
        });
        let eos = config.token("eos_token");
        Ok(Self {
            control: ControlTokens::new(control, json.model.unknown(&tokenizer)),
            spelling: Spelling::of(&json.decoder),
            bos: config.token("bos_token"),
            eos_ids: eos
                .iter()
                .filter_map(|token| tokenizer.token_to_id(token))
                .collect(),
            eos,
            notes,
            file,
            own,
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

    /// Token ids of a conversation, whose messages stay text: the name of a control token becomes
    /// that token only where the template wrote it. Conversations without such names have the
    /// tokens of [`Self::encode`].
    ///
    /// # Errors
    /// [`TextError::Tokenizer`], and [`TextError::Conversation`] where the tokenizer cannot keep
    /// a name as text.
    pub fn encode_chat(
        &self,
        chat: &RenderedChat,
        add_special: bool,
    ) -> Result<Vec<u32>, TextError> {
        let Some(kept) = self.control.kept_as_text(chat)? else {
            return self.encode(chat.text(), add_special);
        };
        let tokens = guarded(|| self.control.encode(&self.tokenizer, &kept, add_special));
        let tokens = tokens.map_err(|reason| self.fail(reason))?;
        Ok(tokens.into_iter().map(|(id, _)| id).collect())
    }

    /// The tokens of [`Self::encode`], each with the bytes of `text` that it stands for: all those
    /// of a character of which it is a part, none where the tokenizer put it there.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn encode_placed(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<Vec<(u32, Range<usize>)>, TextError> {
        let encoding = guarded(|| self.tokenizer.encode(text, add_special));
        let encoding = encoding.map_err(|reason| self.fail(reason))?;
        let places = encoding.get_offsets().iter();
        let places = places.map(|(start, end)| *start..*end);
        Ok(encoding.get_ids().iter().copied().zip(places).collect())
    }

    /// The tokens of [`Self::encode_chat`], placed as by [`Self::encode_placed`].
    ///
    /// # Errors
    /// As [`Self::encode_chat`].
    pub fn encode_chat_placed(
        &self,
        chat: &RenderedChat,
        add_special: bool,
    ) -> Result<Vec<(u32, Range<usize>)>, TextError> {
        let Some(kept) = self.control.kept_as_text(chat)? else {
            return self.encode_placed(chat.text(), add_special);
        };
        guarded(|| self.control.encode(&self.tokenizer, &kept, add_special))
            .map_err(|reason| self.fail(reason))
    }

    /// The text of token ids; with `skip_special`, without special tokens. Bytes that are no
    /// UTF-8 come as U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let is_foreign = |id: &u32| self.own.texts.get(id).is_some_and(|text| !text.is_ascii());
        if self.spelling.is_byte_level() && ids.iter().any(is_foreign) {
            // The library would take letters of added tokens for bytes.
            let shown = ids
                .iter()
                .filter(|id| !skip_special || !self.is_special(**id));
            let bytes: Vec<u8> = shown.flat_map(|id| self.token_bytes(*id)).collect();
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        guarded(|| self.tokenizer.decode(ids, skip_special)).map_err(|reason| self.fail(reason))
    }

    /// Tokens that the tokenizer knows, added ones too.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Sentences about what its files name and is not used.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
        self.own.special.contains(&id)
    }

    /// The id of a token by its exact name in `tokenizer.json`.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_to_id(name)
    }

    /// The exact bytes of a token within a text; of a special token, its name. A token may hold a
    /// part of a character. Empty for an id that the tokenizer lacks.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.bytes_by(&self.own, id)
    }

    /// The tokens that were added to the vocabulary, in no order.
    pub(crate) fn added_ids(&self) -> impl Iterator<Item = u32> {
        let (file, own) = (self.file.texts.keys(), self.own.texts.keys());
        file.chain(own).copied()
    }

    /// [`Self::token_bytes`] by `tokenizer.json` alone, and whether the token is special there.
    /// Grammars and answers go by it, so that the judge of an answer needs no other file.
    pub(crate) fn file_bytes(&self, id: u32) -> (Vec<u8>, bool) {
        (
            self.bytes_by(&self.file, id),
            self.file.special.contains(&id),
        )
    }

    fn bytes_by(&self, added: &Added, id: u32) -> Vec<u8> {
        match (added.texts.get(&id), self.tokenizer.id_to_token(id)) {
            (Some(text), _) if added.special.contains(&id) => text.clone().into_bytes(),
            (Some(text), _) => self.spelling.bytes(text, true),
            (None, Some(name)) => self.spelling.bytes(&name, false),
            (None, None) => Vec::new(),
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

/// Removes tokens of a role (such as `pad_token`) that the vocabulary lacks, and gives a sentence
/// for each. The model has no embedding for such a token, so no token has the role, and its name is
/// text.
fn with_ids<'a>(
    named: Vec<(&'a str, AddedToken)>,
    tokenizer: &Tokenizer,
) -> (Vec<(&'a str, AddedToken)>, Vec<String>) {
    let (lacking, kept): (Vec<_>, Vec<_>) = named.into_iter().partition(|(key, token)| {
        key.ends_with("_token") && tokenizer.token_to_id(&token.content).is_none()
    });
    let note = |(key, token): (&str, AddedToken)| {
        let name = token.content;
        format!("the tokenizer's `{key}` is {name}, which tokenizer.json lacks: it is not used")
    };
    (kept, lacking.into_iter().map(note).collect())
}

/// The tokens that the files beside `tokenizer.json` add, or whose flags they change.
fn added_by(
    config: &TokenizerConfig,
    class: Option<TokenizerClass>,
    tokenizer: &Tokenizer,
    more: Vec<(&str, AddedToken)>,
) -> Result<Vec<AddedToken>, TextError> {
    let known = |token: &AddedToken| tokenizer.token_to_id(&token.content).is_some();
    let mut added = config.added_tokens().to_vec();
    let mut texts: BTreeSet<String> = Added::of(tokenizer).texts.into_values().collect();
    texts.extend(added.iter().map(|token| token.content.clone()));
    let listed = added.iter().map(|token| ("added_tokens_decoder", token));
    let mut named = listed.chain(more.iter().map(|(key, token)| (*key, token)));
    if let Some((key, token)) = named.find(|(_, token)| !known(token)) {
        return Err(TextError::Tokenizer {
            path: config.path().to_path_buf(),
            reason: format!(
                "`{key}` names the token {}, which tokenizer.json does not have: save the \
                 tokenizer again, so that tokenizer.json has it, or leave the name out",
                token.content
            ),
        });
    }
    let own = class.map_or(&[][..], TokenizerClass::tokens).iter();
    let own = own
        .filter(|(key, _)| !config.keys().contains_key(*key))
        .map(|(_, text)| AddedToken::from(*text, true))
        .filter(known);
    for token in more.into_iter().map(|(_, token)| token).chain(own) {
        if texts.insert(token.content.clone()) {
            added.push(token);
        }
    }
    Ok(added)
}

/// The parts of `tokenizer.json` that are read here, too.
#[derive(serde::Deserialize)]
struct Parts {
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Model,
}

impl Parts {
    fn is_byte_level(&self) -> bool {
        is_byte_level(&self.pre_tokenizer) || is_byte_level(&self.decoder)
    }
}

#[derive(Default, serde::Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

impl Model {
    /// The token for what the vocabulary lacks.
    fn unknown(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let named = self
            .unk_token
            .as_ref()
            .and_then(|name| tokenizer.token_to_id(name));
        self.unk_id.or(named)
    }
}

/// Calls the library; its panics, which a `tokenizer.json` with a special token that its own map
/// lacks can still cause, become errors.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // The library's caches hold text and ids only: after a panic they are incomplete, never wrong.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer contradicts itself; download it again".to_string()),
    }
}
