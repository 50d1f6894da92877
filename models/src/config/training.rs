//! What a `config.json` asks of training alone.

use std::path::Path;

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::parse::read;
use crate::error::ModelError;
use crate::json;

impl DecoderConfig {
    /// Refuses a model folder whose `config.json` asks for something while training that is not
    /// computed: `attention_dropout`. It changes no answer, so that only training looks at it.
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
        match fields.get("attention_dropout") {
            Some(value) if value.as_f64() != Some(0.0) => Err(fields.bad(
                "attention_dropout",
                value,
                "models are trained without dropout: set it to 0 to do so",
            )),
            _ => Ok(()),
        }
    }
}
