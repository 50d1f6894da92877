//! Command R (Cohere) and Command R7B (Cohere 2): attention and feed-forward layer in parallel
//! after one LayerNorm, interleaved RoPE, scaled logits.

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, NormKind, windows};
use crate::error::ModelError;

pub(in crate::config) const COHERE: FamilyRules = FamilyRules {
    names: ("CohereForCausalLM", "cohere"),
    keys: "attention_bias head_dim logit_scale num_key_value_heads",
    positions: 8_192,
    rope: RopeRules {
        theta: 500_000.0,
        neighbours: true,
        ..RopeRules::PLAIN
    },
    norm_eps: ("layer_norm_eps", 1e-5),
    tied: true,
    special: (&[5], &[255_001]),
    parts: PartNames {
        feed_in: None,
        ..PartNames::LLAMA
    },
    differ,
    ..llama::RULES
};

pub(in crate::config) const COHERE_2: FamilyRules = FamilyRules {
    names: ("Cohere2ForCausalLM", "cohere2"),
    keys: "attention_bias head_dim layer_types logit_scale num_key_value_heads sliding_window \
        sliding_window_pattern",
    ignored: "_sliding_window_pattern layer_switch order_of_interleaved_layers \
        position_embedding_type use_embedding_sharing use_gated_activation use_parallel_block \
        use_parallel_embedding",
    rope: RopeRules {
        theta: 10_000.0,
        ..COHERE.rope
    },
    differ: differ_2,
    ..COHERE
};

/// The default of `sliding_window`.
const WINDOW: usize = 4_096;
/// The default of `logit_scale`.
const LOGIT_SCALE: f32 = 0.0625;

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.norm = NormKind::LayerWithoutBias;
    config.parallel_residual = true;
    config.logit_multiplier = Some(fields.multiplier("logit_scale")?.unwrap_or(LOGIT_SCALE));
    Ok(())
}

/// Layers without a window have no rotary embedding either.
fn differ_2(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    differ(fields, config)?;
    let every = fields.size_or("sliding_window_pattern", 1 << 10, 4)?;
    config.sliding_window = windows::alternating(fields, config, Some(WINDOW), |layer| {
        !(layer + 1).is_multiple_of(every)
    })?;
    config.unrotated = config.unwindowed();
    Ok(())
}
