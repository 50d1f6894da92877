//! Gemma (text): norms that multiply by 1 + w, and scaled embeddings; from Gemma 2 on also norms on
//! the outputs of attention and feed-forward layer, soft caps, and windows on half of the layers or
//! more.

use concord_kernels::ops::Activation;

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{DecoderConfig, NormKind, QkNorm, activation, rope, windows};
use crate::error::ModelError;

pub(in crate::config) const GEMMA: FamilyRules = FamilyRules {
    names: ("GemmaForCausalLM", "gemma"),
    keys: "attention_bias head_dim num_key_value_heads",
    ignored: "hidden_activation",
    positions: 8_192,
    kv_heads: Some(16),
    head_dim: Some(256),
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    tied: true,
    special: (&[2], &[1]),
    differ: differ_1,
    ..llama::RULES
};

pub(in crate::config) const GEMMA_2: FamilyRules = FamilyRules {
    names: ("Gemma2ForCausalLM", "gemma2"),
    keys: "attention_bias attn_logit_softcapping final_logit_softcapping head_dim hidden_act \
        layer_types num_key_value_heads query_pre_attn_scalar sliding_window",
    ignored: "",
    positions: 8_192,
    kv_heads: Some(4),
    head_dim: Some(256),
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    tied: true,
    special: (&[2], &[1]),
    parts: PartNames::GEMMA,
    differ: differ_2,
    ..llama::RULES
};

pub(in crate::config) const GEMMA_3: FamilyRules = FamilyRules {
    names: ("Gemma3ForCausalLM", "gemma3_text"),
    keys: "attention_bias final_logit_softcapping head_dim hidden_act layer_types \
        num_key_value_heads query_pre_attn_scalar rope_local_base_freq sliding_window \
        sliding_window_pattern",
    ignored: "_sliding_window_pattern",
    positions: 131_072,
    rope: RopeRules {
        theta: 1e6,
        layered: true,
        ..RopeRules::PLAIN
    },
    differ: differ_3,
    ..GEMMA_2
};

/// The default of `sliding_window`.
const WINDOW: usize = 4_096;
/// The default of `query_pre_attn_scalar`: scores are `q . k` divided by its square root.
const SCALAR: f64 = 256.0;
/// The default rotary base of the windowed layers of Gemma 3.
const LOCAL_THETA: f64 = 10_000.0;

/// Files of Gemma 1 name the exact `gelu`, but transformers computes the tanh approximation for
/// them, which is what the weights were trained with.
fn differ_1(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    common(fields, config)?;
    if config.activation == Activation::Gelu {
        config.activation = Activation::GeluTanh;
    }
    Ok(())
}

fn differ_2(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    later(fields, config)?;
    config.sliding_window =
        windows::alternating(fields, config, Some(WINDOW), |layer| layer % 2 == 0)?;
    config.attention_soft_cap = soft_cap(fields, "attn_logit_softcapping", Some(50.0))?;
    config.logit_soft_cap = soft_cap(fields, "final_logit_softcapping", Some(30.0))?;
    Ok(())
}

fn differ_3(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    later(fields, config)?;
    let every = fields.size_or("sliding_window_pattern", 1 << 10, 6)?;
    config.sliding_window = windows::alternating(fields, config, Some(WINDOW), |layer| {
        !(layer + 1).is_multiple_of(every)
    })?;
    config.logit_soft_cap = soft_cap(fields, "final_logit_softcapping", None)?;
    config.qk_norm = Some(QkNorm::Heads);
    config.local_rope = Some(rope::parse_local(fields, config, LOCAL_THETA)?);
    Ok(())
}

fn later(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    common(fields, config)?;
    let key = "query_pre_attn_scalar";
    let scalar = fields.positive_opt(key)?.unwrap_or(SCALAR);
    config.attention_scale = Some(fields.as_multiplier(key, Some(1.0 / scalar.sqrt()))?);
    // Old files have a second name of the activation, which is not looked at.
    let (key, default) = GEMMA_2.activation;
    if fields.get("hidden_act").is_some()
        && activation::read(fields, "hidden_act", default)? != config.activation
    {
        let value = fields.text("hidden_act")?.unwrap_or_default();
        let rule = format!("`{key}` is another one, and is what counts: remove this key");
        return Err(fields.bad("hidden_act", format!("{value:?}"), rule));
    }
    Ok(())
}

fn common(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    let bias = fields.flag("attention_bias", false)?;
    config.qkv_bias = bias;
    config.o_bias = bias;
    config.norm = NormKind::RmsPlusOne;
    // In f32. transformers rounds it to the dtype of the weights, which is no property of the
    // model.
    config.embedding_multiplier = Some((config.hidden as f64).sqrt() as f32);
    Ok(())
}

/// A soft cap; null is none, and an absent key the default.
fn soft_cap(
    fields: &ConfigFields,
    key: &'static str,
    default: Option<f32>,
) -> Result<Option<f32>, ModelError> {
    match fields.has(key) {
        true => Ok(fields.multiplier(key)?),
        false => Ok(default),
    }
}
