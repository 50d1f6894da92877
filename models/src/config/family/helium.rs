//! Helium: a Llama with interleaved RoPE (elements 2i and 2i + 1 are a pair).

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("HeliumForCausalLM", "helium"),
    keys: "attention_bias head_dim mlp_bias num_key_value_heads",
    positions: 4_096,
    kv_heads: Some(20),
    head_dim: Some(128),
    rope: RopeRules {
        theta: 100_000.0,
        neighbours: true,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 1e-8),
    special: (&[1], &[2]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    Ok(())
}
