//! Qwen 2 and Qwen 3.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::rules::FamilyRules;
use crate::config::{DecoderConfig, QkNorm, windows};
use crate::error::ModelError;

pub(in crate::config) const QWEN_2: FamilyRules = FamilyRules {
    names: ("Qwen2ForCausalLM", "qwen2"),
    positions: 32_768,
    kv_heads: Some(32),
    special: (&[], &[]),
    differ: differ_2,
    ..llama::RULES
};

pub(in crate::config) const QWEN_3: FamilyRules = FamilyRules {
    names: ("Qwen3ForCausalLM", "qwen3"),
    head_dim: Some(128),
    differ: differ_3,
    ..QWEN_2
};

/// Qwen 2 has biases on q, k and v whatever `attention_bias` says; their tensors are required.
fn differ_2(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    fields.flag("attention_bias", false)?;
    fields.never("mlp_bias")?;
    config.qkv_bias = true;
    config.sliding_window = windows::of_qwen(fields, config)?;
    Ok(())
}

fn differ_3(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    fields.never("mlp_bias")?;
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.qk_norm = Some(QkNorm::Heads);
    config.sliding_window = windows::of_qwen(fields, config)?;
    Ok(())
}
