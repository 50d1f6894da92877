//! Seed-OSS: a bias on q, k and v.

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::rules::FamilyRules;
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("SeedOssForCausalLM", "seed_oss"),
    keys: "attention_bias attention_out_bias head_dim mlp_bias num_key_value_heads \
        residual_dropout",
    positions: 524_288,
    kv_heads: Some(8),
    head_dim: Some(128),
    special: (&[0], &[2]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", true)?;
    config.o_bias = fields.flag("attention_out_bias", false)?;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    Ok(())
}
