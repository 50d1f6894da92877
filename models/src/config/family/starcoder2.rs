//! StarCoder2: LayerNorm, biases everywhere, no gate.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::FamilyRules;
use crate::config::{DecoderConfig, NormKind, Projection, windows};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("Starcoder2ForCausalLM", "starcoder2"),
    keys: "embedding_dropout head_dim num_key_value_heads residual_dropout sliding_window use_bias",
    ignored: "mlp_type norm_type",
    positions: 4_096,
    kv_heads: Some(2),
    norm_eps: ("norm_epsilon", 1e-5),
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    tied: true,
    special: (&[50_256], &[50_256]),
    parts: PartNames {
        modules: &[
            (Projection::Up, "mlp.c_fc"),
            (Projection::Down, "mlp.c_proj"),
        ],
        ..PartNames::LLAMA
    },
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    let bias = fields.flag("use_bias", true)?;
    config.qkv_bias = bias;
    config.o_bias = bias;
    config.mlp_bias = bias;
    config.norm = NormKind::Layer;
    config.gated = false;
    config.sliding_window = windows::everywhere(fields, config)?;
    Ok(())
}
