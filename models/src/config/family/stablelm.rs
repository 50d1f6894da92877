//! StableLM 2: LayerNorm, a quarter of each head rotated.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, NormKind};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("StableLmForCausalLM", "stablelm"),
    keys: "hidden_dropout num_key_value_heads use_qkv_bias",
    positions: 4_096,
    kv_heads: Some(32),
    rope: RopeRules {
        partial: Some(0.25),
        ..RopeRules::PLAIN
    },
    norm_eps: ("layer_norm_eps", 1e-5),
    special: (&[0], &[0]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("use_qkv_bias", false)?;
    config.norm = NormKind::Layer;
    Ok(())
}
