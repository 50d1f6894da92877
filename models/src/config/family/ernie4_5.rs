//! ERNIE 4.5 without experts: a Llama with interleaved RoPE (elements 2i and 2i + 1 are a pair).

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("Ernie4_5ForCausalLM", "ernie4_5"),
    keys: "head_dim num_key_value_heads use_bias",
    positions: 131_072,
    kv_heads: Some(2),
    head_dim: Some(128),
    rope: RopeRules {
        theta: 500_000.0,
        neighbours: true,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 1e-5),
    tied: true,
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    let bias = fields.flag("use_bias", false)?;
    config.qkv_bias = bias;
    config.o_bias = bias;
    config.mlp_bias = bias;
    Ok(())
}
