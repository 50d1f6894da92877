//! Granite 3: multipliers on embeddings, on what attention and feed-forward layer add to the
//! residual stream, on attention scores and on logits.

use super::llama;
use crate::config::DecoderConfig;
use crate::config::fields::ConfigFields;
use crate::config::rules::FamilyRules;
use crate::error::ModelError;

pub(in crate::config) const RULES: FamilyRules = FamilyRules {
    names: ("GraniteForCausalLM", "granite"),
    keys: "attention_bias attention_multiplier embedding_multiplier head_dim logits_scaling \
        mlp_bias num_key_value_heads residual_multiplier",
    differ,
    ..llama::RULES
};

fn differ(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.mlp_bias = fields.flag("mlp_bias", false)?;
    config.attention_scale = Some(fields.multiplier("attention_multiplier")?.unwrap_or(1.0));
    config.embedding_multiplier = fields.multiplier("embedding_multiplier")?;
    config.residual_multiplier = fields.multiplier("residual_multiplier")?;
    let divisor = fields.positive_opt("logits_scaling")?;
    config.logit_multiplier = match divisor {
        Some(_) => Some(fields.as_multiplier("logits_scaling", divisor.map(f64::recip))?),
        None => None,
    };
    Ok(())
}
