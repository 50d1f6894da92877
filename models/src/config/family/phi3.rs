//! Phi 3 and Phi 4: one fused projection for q, k and v, another for gate and up.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, FusedQkv, windows};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("Phi3ForCausalLM", "phi3"),
    keys: "embd_pdrop head_dim num_key_value_heads resid_pdrop sliding_window",
    ignored: "full_attn_mod interpolate_factor",
    positions: 4_096,
    original_positions: Some(4_096),
    rope: RopeRules {
        partial: Some(1.0),
        longrope_names: true,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[1], &[32_000]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.fused_qkv = Some(FusedQkv::Blocks);
    config.fused_gate_up = true;
    config.sliding_window = windows::everywhere(fields, config)?;
    Ok(())
}
