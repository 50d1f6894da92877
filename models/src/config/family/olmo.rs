//! OLMo 2 and OLMo 3: norms on the outputs of attention and feed-forward layer only, and over the
//! whole width of q and k. OLMo 3 has windows on most layers, and scales the rotary embedding only
//! on the layers without one.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, QkNorm, rope, windows};
use crate::error::ModelError;

pub(in crate::config) const OLMO_2: FamilyRules = FamilyRules {
    names: ("Olmo2ForCausalLM", "olmo2"),
    keys: "attention_bias head_dim num_key_value_heads",
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[], &[50_279]),
    parts: PartNames::OLMO_2,
    differ: differ_2,
    ..llama::RULES
};

pub(in crate::config) const OLMO_3: FamilyRules = FamilyRules {
    names: ("Olmo3ForCausalLM", "olmo3"),
    keys: "attention_bias head_dim layer_types num_key_value_heads sliding_window",
    rope: RopeRules {
        theta: LOCAL_THETA,
        layered: true,
        ..RopeRules::PLAIN
    },
    differ: differ_3,
    ..OLMO_2
};

/// The default of `sliding_window`.
const WINDOW: usize = 4_096;
/// The default rotary base, which is also that of the windowed layers.
const LOCAL_THETA: f64 = 500_000.0;

fn differ_2(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.qk_norm = Some(QkNorm::Width);
    Ok(())
}

fn differ_3(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    differ_2(fields, config)?;
    config.sliding_window =
        windows::alternating(fields, config, Some(WINDOW), |layer| (layer + 1) % 4 != 0)?;
    config.local_rope = Some(rope::parse_local(fields, config, LOCAL_THETA)?);
    Ok(())
}
