//! The families of decoders, and how a `config.json` names them.

use serde_json::Value;

use super::fields::ConfigFields;
use crate::error::ModelError;

/// A family of decoders, by the name in `architectures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `LlamaForCausalLM`: Llama 1 to 3, TinyLlama, SmolLM.
    Llama,
    /// `Qwen2ForCausalLM`: a bias on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: an RMSNorm on every head of q and k.
    Qwen3,
    /// `MistralForCausalLM`: a sliding window on all layers, or on those that the file lists.
    Mistral,
}

/// `architectures`, `model_type` and what they name. transformers 5 takes its class Ministral for a
/// Mistral whose layers differ, and saves it by that name.
const NAMES: [(&str, &str, Family); 5] = [
    ("LlamaForCausalLM", "llama", Family::Llama),
    ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
    ("MistralForCausalLM", "mistral", Family::Mistral),
    ("MinistralForCausalLM", "ministral", Family::Mistral),
];

impl Family {
    /// Every family, in the order in which messages list them.
    pub const ALL: [Family; 4] = [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Mistral];

    /// The name in `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::Mistral => "MistralForCausalLM",
        }
    }
}

/// The family that `architectures` and `model_type` name. One of them is enough; where both are
/// there, they must name the same.
pub(super) fn parse(fields: &ConfigFields) -> Result<Family, ModelError> {
    let model_type = fields.text("model_type")?;
    let of_type = model_type.and_then(|name| NAMES.iter().find(|known| known.1 == name));
    let Some(value) = fields.get("architectures") else {
        let family = of_type.map(|known| known.2);
        return family.ok_or_else(|| fields.missing("architectures"));
    };
    let found = match value.as_array().map(Vec::as_slice) {
        Some([Value::String(name)]) => name,
        _ => return Err(fields.bad("architectures", value, "must be a list of one name")),
    };
    let known = NAMES.iter().find(|known| known.0 == found);
    let family = known.ok_or_else(|| ModelError::UnknownArchitecture {
        path: fields.path.to_path_buf(),
        found: found.clone(),
        known: Family::ALL.map(Family::architecture).join(", "),
    })?;
    match model_type {
        Some(name) if of_type.map(|known| known.2) != Some(family.2) => Err(fields.bad(
            "model_type",
            format!("{name:?}"),
            format!(
                "`architectures` names {found}, whose model_type is {:?}: one of the two is wrong",
                family.1
            ),
        )),
        _ => Ok(family.2),
    }
}
