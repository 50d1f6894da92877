//! GLM and GLM 4: interleaved RoPE on half of each head; gate and up projection fused.

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::error::ModelError;

pub(in crate::config) const GLM: FamilyRules = FamilyRules {
    names: ("GlmForCausalLM", "glm"),
    keys: "attention_bias head_dim num_key_value_heads",
    positions: 131_072,
    kv_heads: Some(2),
    head_dim: Some(128),
    rope: RopeRules {
        partial: Some(0.5),
        neighbours: true,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 0.000_000_156_25),
    special: (&[], &[151_329, 151_336, 151_338]),
    differ,
    ..llama::RULES
};

pub(in crate::config) const GLM_4: FamilyRules = FamilyRules {
    names: ("Glm4ForCausalLM", "glm4"),
    parts: PartNames {
        attention_out: Some("post_self_attn_layernorm"),
        feed_out: Some("post_mlp_layernorm"),
        ..PartNames::LLAMA
    },
    ..GLM
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", true)?;
    config.fused_gate_up = true;
    Ok(())
}
