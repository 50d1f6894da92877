//! Arcee (AFM): a feed-forward layer without a gate, with squared ReLU.

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::rules::FamilyRules;
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("ArceeForCausalLM", "arcee"),
    keys: "attention_bias head_dim mlp_bias num_key_value_heads",
    positions: 4_096,
    norm_eps: ("rms_norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    special: (&[128_000], &[128_001]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    config.gated = false;
    Ok(())
}
