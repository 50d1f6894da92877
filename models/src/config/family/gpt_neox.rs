//! GPT-NeoX and Pythia: attention and feed-forward layer in parallel; one fused projection for q, k
//! and v, whose rows are grouped by head.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, FusedQkv, NormKind, Projection};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("GPTNeoXForCausalLM", "gpt_neox"),
    keys: "attention_bias hidden_dropout use_parallel_residual",
    ignored: "",
    rope: RopeRules {
        theta_key: "rotary_emb_base",
        partial: Some(0.25),
        partial_key: "rotary_pct",
        ..RopeRules::PLAIN
    },
    norm_eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "gelu"),
    special: (&[0], &[2]),
    parts: PartNames {
        embed: "gpt_neox.embed_in",
        layers: "gpt_neox.layers",
        final_norm: "gpt_neox.final_layer_norm",
        head: "embed_out",
        modules: &[
            (Projection::Qkv, "attention.query_key_value"),
            (Projection::O, "attention.dense"),
            (Projection::Up, "mlp.dense_h_to_4h"),
            (Projection::Down, "mlp.dense_4h_to_h"),
        ],
        ..PartNames::LLAMA
    },
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", true)?;
    config.o_bias = config.qkv_bias;
    config.mlp_bias = true;
    config.norm = NormKind::Layer;
    config.gated = false;
    config.fused_qkv = Some(FusedQkv::Heads);
    config.parallel_residual = fields.flag("use_parallel_residual", true)?;
    Ok(())
}
