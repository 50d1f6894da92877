//! What a model has besides its weights: tokenizer, chat template and sampling parameters. A GGUF
//! file contains the first two itself.

use std::fs;

use concord_text::{ChatTemplate, TextTokenizer};
use serde_json::Value;

use super::ModelFolder;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::generation_config::GenerationConfig;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

impl ModelFolder {
    /// Its tokenizer.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, broken, or of an unsupported kind.
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        match self.made()? {
            Some([tokenizer, config]) => {
                let (tokenizer, config) = (tokenizer.to_string(), config.to_string());
                let made = TextTokenizer::from_bytes(tokenizer.as_bytes(), Some(config.as_bytes()));
                Ok(made?)
            }
            None => Ok(TextTokenizer::open(&self.dir)?),
        }
    }

    /// The bytes of its `tokenizer.json`, or of one that is made from a GGUF file.
    ///
    /// # Errors
    /// As [`Self::tokenizer`].
    pub fn tokenizer_json(&self) -> Result<Vec<u8>, ModelError> {
        match self.made()? {
            Some([tokenizer, _]) => Ok(tokenizer.to_string().into_bytes()),
            None => {
                let path = self.dir.join(TOKENIZER);
                fs::read(&path).map_err(ModelError::io("read", &path))
            }
        }
    }

    /// Its chat template, where it has one.
    ///
    /// # Errors
    /// [`ModelError`] where it cannot be read.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ModelError> {
        match self.made()? {
            Some([_, config]) => Ok(ChatTemplate::from_config(config.to_string().as_bytes())?),
            None => Ok(ChatTemplate::open(&self.dir)?),
        }
    }

    /// Its recommended sampling parameters.
    ///
    /// # Errors
    /// [`ModelError`] naming the key of `generation_config.json` that cannot be used.
    pub fn generation(&self) -> Result<GenerationConfig, ModelError> {
        GenerationConfig::open(&self.dir)
    }

    /// Refuses a model that asks for something in training that is not computed.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key.
    pub fn check_training(&self) -> Result<(), ModelError> {
        match self.dir.join("config.json").is_file() {
            true => DecoderConfig::check_training(&self.dir),
            // A GGUF file has no such settings.
            false => Ok(()),
        }
    }

    /// Files that a folder of the model needs and that are made from a GGUF file, by name.
    pub(crate) fn made_companions(&self) -> Result<Vec<(&'static str, String)>, ModelError> {
        let made = self.made()?.into_iter();
        let named = made.flat_map(|files| [TOKENIZER, TOKENIZER_CONFIG].into_iter().zip(files));
        Ok(named.map(|(name, file)| (name, file.to_string())).collect())
    }

    /// `tokenizer.json` and `tokenizer_config.json`, made from a GGUF file; `None` where the folder
    /// has a tokenizer.
    fn made(&self) -> Result<Option<[Value; 2]>, ModelError> {
        match &self.gguf {
            Some(gguf) if !self.dir.join(TOKENIZER).is_file() => gguf.tokenizer().map(Some),
            _ => Ok(None),
        }
    }
}
