//! OLMo 2: norms of what is added alone, and over the whole width of q and k.

use super::llama;
use super::rules::FamilyRules;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::{DecoderConfig, QkNorm};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("Olmo2ForCausalLM", "olmo2"),
    keys: "attention_bias head_dim num_key_value_heads",
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[], &[50_279]),
    parts: PartNames::OLMO_2,
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.qk_norm = Some(QkNorm::Width);
    Ok(())
}
