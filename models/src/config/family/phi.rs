//! Phi 1, 1.5 and 2: attention and feed-forward layer in parallel after one LayerNorm; biases
//! everywhere, also on the head.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, NormKind, Projection};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("PhiForCausalLM", "phi"),
    keys: "embd_pdrop head_dim num_key_value_heads resid_pdrop",
    rope: RopeRules {
        partial: Some(0.5),
        ..RopeRules::PLAIN
    },
    norm_eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "gelu_new"),
    parts: PartNames {
        final_norm: "model.final_layernorm",
        feed_in: None,
        modules: &[
            (Projection::O, "self_attn.dense"),
            (Projection::Up, "mlp.fc1"),
            (Projection::Down, "mlp.fc2"),
        ],
        ..PartNames::LLAMA
    },
    differ,
    ..llama::RULES
};

fn differ(_: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = true;
    config.o_bias = true;
    config.mlp_bias = true;
    config.head_bias = true;
    config.norm = NormKind::Layer;
    config.gated = false;
    config.parallel_residual = true;
    Ok(())
}
