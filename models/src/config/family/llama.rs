//! Llama, the baseline: all other families are described by how they differ from it.

use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, windows};
use crate::error::ModelError;

/// The keys around windows and biases that files of Llama, Qwen and Mistral share.
pub(super) const KEYS: &str = "attention_bias head_dim hidden_act layer_types max_window_layers \
    mlp_bias num_key_value_heads rms_norm_eps sliding_window use_sliding_window";

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("LlamaForCausalLM", "llama"),
    keys: KEYS,
    ignored: "",
    positions: 2_048,
    kv_heads: None,
    head_dim: None,
    original_positions: None,
    rope: RopeRules::PLAIN,
    norm_eps: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    tied: false,
    special: (&[1], &[2]),
    parts: PartNames::LLAMA,
    differ,
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    let attention_bias = fields.flag("attention_bias", false)?;
    config.qkv_bias = attention_bias;
    config.o_bias = attention_bias;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    config.sliding_window = windows::of_llama(fields, config)?;
    Ok(())
}
