//! EXAONE 4: norms on the outputs of attention and feed-forward layer, not on their inputs, and on
//! the heads of q and k. In models with windows, the layers without one have no rotary embedding.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::FamilyRules;
use crate::config::{DecoderConfig, QkNorm, windows};
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("Exaone4ForCausalLM", "exaone4"),
    keys: "head_dim layer_types num_key_value_heads sliding_window sliding_window_pattern",
    kv_heads: Some(32),
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[0], &[2]),
    parts: PartNames::OLMO_2,
    differ,
    ..llama::RULES
};

/// The default of `sliding_window`.
const WINDOW: usize = 4_096;
/// One layer in this many has no window, unless `layer_types` or a number as
/// `sliding_window_pattern` says otherwise.
const PATTERN: usize = 4;

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qk_norm = Some(QkNorm::Heads);
    let is_text = fields
        .get("sliding_window_pattern")
        .is_some_and(|p| p.is_string());
    let every = match is_text && fields.get("layer_types").is_some() {
        true => PATTERN,
        false => fields.size_or("sliding_window_pattern", 1 << 10, PATTERN)?,
    };
    config.sliding_window = windows::alternating(fields, config, Some(WINDOW), |layer| {
        !(layer + 1).is_multiple_of(every)
    })?;
    let has_window = !fields.has("sliding_window") || fields.get("sliding_window").is_some();
    if has_window {
        config.unrotated = config.unwindowed();
    }
    Ok(())
}
