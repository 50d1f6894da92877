//! SmolLM 3: some layers have no rotary embedding.

use serde_json::Value;

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, windows};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("SmolLM3ForCausalLM", "smollm3"),
    keys: "attention_bias head_dim layer_types mlp_bias no_rope_layer_interval no_rope_layers \
        num_key_value_heads sliding_window use_sliding_window",
    ignored: "max_window_layers",
    positions: 32_768,
    kv_heads: Some(4),
    rope: RopeRules {
        theta: 2e6,
        ..RopeRules::PLAIN
    },
    tied: true,
    special: (&[128_000], &[128_001]),
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    config.unrotated = unrotated(fields, config.layers)?;
    let without = config.unrotated.clone();
    let windowed = windows::alternating(fields, config, None, |layer| without.contains(&layer))?;
    config.sliding_window = match fields.flag("use_sliding_window", false)? {
        true => windowed,
        false => vec![None; config.layers],
    };
    Ok(())
}

/// The layers without rotary embedding: those where `no_rope_layers` has a 0; without that key,
/// every `no_rope_layer_interval`-th.
fn unrotated(fields: &ConfigFields, layers: usize) -> Result<Vec<usize>, ModelError> {
    let Some(value) = fields.get("no_rope_layers") else {
        let every = fields.size_or("no_rope_layer_interval", 1 << 10, 4)?;
        let is_last_of_some = |layer: &usize| (layer + 1).is_multiple_of(every);
        return Ok((0..layers).filter(is_last_of_some).collect());
    };
    let rule = "must list for every layer 1, where it has a rotary embedding, or 0";
    let bad = || fields.bad("no_rope_layers", value, rule);
    let flags = value.as_array().filter(|flags| flags.len() >= layers);
    let flag = |flag: &Value| match flag.as_u64() {
        Some(number @ (0 | 1)) => Ok(number == 1),
        _ => Err(bad()),
    };
    let flags = flags.ok_or_else(bad)?.iter().map(flag);
    let flags = flags.collect::<Result<Vec<bool>, ModelError>>()?;
    Ok((0..layers).filter(|&layer| !flags[layer]).collect())
}
