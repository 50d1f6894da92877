//! What a `config.json` asks for that matters only in training.

use std::path::Path;

use serde_json::Value;

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::parse::read;
use crate::error::ModelError;
use crate::json;

/// Keys of dropout that at least one family reads.
const DROPOUTS: [&str; 6] = [
    "attention_dropout",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "residual_dropout",
];

impl DecoderConfig {
    /// Refuses a model folder whose `config.json` asks for something in training that is not
    /// computed: dropout, router noise, a loss besides that of the text. None of these changes an
    /// answer, so only training checks for them.
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
        check_dropouts(&fields)?;
        check_router(&fields)
    }
}

/// Refuses all dropouts at once, so that a file with several is edited once.
fn check_dropouts(fields: &ConfigFields) -> Result<(), ModelError> {
    let is_on = |key: &&str| {
        let value = fields.get(key);
        value.is_some_and(|value| value.as_f64() != Some(0.0))
    };
    let mut on = DROPOUTS.into_iter().filter(is_on);
    let Some(first) = on.next() else {
        return Ok(());
    };
    let value = fields.get(first).unwrap_or(&Value::Null);
    let more: Vec<String> = on.map(|key| format!("`{key}`")).collect();
    let mut rule = "models are trained without dropout: set it to 0 to do so".to_string();
    if !more.is_empty() {
        rule += &format!(", and {}, too", more.join(", "));
    }
    Err(fields.bad(first, value, rule))
}

/// What the classes of models with experts add in training, where they are told to.
fn check_router(fields: &ConfigFields) -> Result<(), ModelError> {
    if let Some(value) = fields.get("router_jitter_noise")
        && value.as_f64() != Some(0.0)
    {
        let rule = "a router is trained without noise: set it to 0 to do so";
        return Err(fields.bad("router_jitter_noise", value, rule));
    }
    let weighs = fields.get("router_aux_loss_coef");
    let weighs = weighs.is_none_or(|value| value.as_f64() != Some(0.0));
    let counts = ["num_experts", "num_local_experts"];
    let has_experts = counts.iter().any(|key| fields.get(key).is_some());
    if has_experts && weighs && fields.flag("output_router_logits", false)? {
        let rule = "with it the loads of experts are part of the loss in transformers, which is \
                    not computed: set it to false to train by the text alone";
        return Err(fields.bad("output_router_logits", true, rule));
    }
    Ok(())
}
