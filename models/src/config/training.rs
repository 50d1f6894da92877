//! What a `config.json` asks of training alone.

use std::path::Path;

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::parse::read;
use crate::error::ModelError;
use crate::json;

/// The dropouts that some family reads.
const DROPOUTS: [&str; 6] = [
    "attention_dropout",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "residual_dropout",
];

impl DecoderConfig {
    /// Refuses a model folder whose `config.json` asks for something while training that is not
    /// computed: dropout. It changes no answer, so that only training looks at it.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key.
    pub fn check_training(folder: &Path) -> Result<(), ModelError> {
        let path = folder.join("config.json");
        let object = json::object(&path, read(&path)?.as_bytes())?;
        let fields = ConfigFields {
            path: &path,
            object: &object,
        };
        let rule = "models are trained without dropout: set it to 0 to do so";
        DROPOUTS
            .into_iter()
            .try_for_each(|key| match fields.get(key) {
                Some(value) if value.as_f64() != Some(0.0) => Err(fields.bad(key, value, rule)),
                _ => Ok(()),
            })
    }
}
