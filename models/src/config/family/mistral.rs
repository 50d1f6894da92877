//! Mistral and Ministral: a window on every layer, or on those that the file lists.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::rules::FamilyRules;
use crate::config::{DecoderConfig, windows};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("MistralForCausalLM", "mistral"),
    positions: 131_072,
    kv_heads: Some(8),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    fields.never("attention_bias")?;
    fields.never("mlp_bias")?;
    config.sliding_window = windows::of_mistral(fields, config)?;
    Ok(())
}
