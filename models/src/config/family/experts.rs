//! Families whose feed-forward layers are made of experts: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and
//! gpt-oss.

use concord_kernels::ops::Activation;

use super::llama;
use crate::config::fields::ConfigFields;
use crate::config::names::PartNames;
use crate::config::rules::{FamilyRules, RopeRules};
use crate::config::{
    DecoderConfig, ExpertNames, ExpertsShape, Projection, QkNorm, RopeScaling, RouterScores,
    SharedExpertShape, windows,
};
use crate::error::ModelError;

pub(in crate::config) const MIXTRAL: FamilyRules = FamilyRules {
    names: ("MixtralForCausalLM", "mixtral"),
    keys: "head_dim num_experts num_experts_per_tok num_key_value_heads num_local_experts \
        router_jitter_noise sliding_window",
    positions: 131_072,
    kv_heads: Some(8),
    rope: RopeRules {
        theta: 1e6,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 1e-5),
    parts: PartNames {
        modules: &[
            (Projection::Gate, "block_sparse_moe.experts.w1"),
            (Projection::Up, "block_sparse_moe.experts.w3"),
            (Projection::Down, "block_sparse_moe.experts.w2"),
        ],
        ..PartNames::LLAMA
    },
    differ: differ_mixtral,
    ..llama::RULES
};

pub(in crate::config) const QWEN_2_MOE: FamilyRules = FamilyRules {
    names: ("Qwen2MoeForCausalLM", "qwen2_moe"),
    keys: "decoder_sparse_step head_dim layer_types max_window_layers mlp_only_layers \
        moe_intermediate_size norm_topk_prob num_experts num_experts_per_tok num_key_value_heads \
        num_local_experts qkv_bias shared_expert_intermediate_size sliding_window \
        use_sliding_window",
    positions: 32_768,
    kv_heads: Some(16),
    special: (&[], &[]),
    differ: differ_qwen_2,
    ..llama::RULES
};

pub(in crate::config) const QWEN_3_MOE: FamilyRules = FamilyRules {
    names: ("Qwen3MoeForCausalLM", "qwen3_moe"),
    keys: "attention_bias decoder_sparse_step head_dim mlp_only_layers moe_intermediate_size \
        norm_topk_prob num_experts num_experts_per_tok num_key_value_heads num_local_experts \
        sliding_window use_sliding_window",
    ignored: "max_window_layers",
    kv_heads: Some(4),
    differ: differ_qwen_3,
    ..QWEN_2_MOE
};

pub(in crate::config) const OLMOE: FamilyRules = FamilyRules {
    names: ("OlmoeForCausalLM", "olmoe"),
    keys: "attention_bias head_dim norm_topk_prob num_experts num_experts_per_tok \
        num_key_value_heads num_local_experts",
    positions: 4_096,
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[], &[50_279]),
    differ: differ_olmoe,
    ..llama::RULES
};

pub(in crate::config) const GPT_OSS: FamilyRules = FamilyRules {
    names: ("GptOssForCausalLM", "gpt_oss"),
    keys: "attention_bias head_dim layer_types num_experts num_experts_per_tok \
        num_key_value_heads num_local_experts sliding_window swiglu_alpha swiglu_limit",
    ignored: "experts_per_token initial_context_length",
    positions: 131_072,
    kv_heads: Some(8),
    head_dim: Some(64),
    rope: RopeRules {
        theta: 150_000.0,
        ..RopeRules::PLAIN
    },
    norm_eps: ("rms_norm_eps", 1e-5),
    special: (&[], &[]),
    differ: differ_gpt_oss,
    ..llama::RULES
};

/// The default of `sliding_window` in Qwen.
const QWEN_WINDOW: usize = 4_096;
/// The default of `max_window_layers` in Qwen2-MoE: only layers below it can have a window.
const WINDOWED_LAYERS: usize = 28;

fn differ_mixtral(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.sliding_window = windows::everywhere(fields, config)?;
    config.experts = Some(ExpertsShape {
        normalised: true,
        names: ExpertNames::MIXTRAL,
        ..shape(fields, config, (8, 2), config.intermediate)?
    });
    Ok(())
}

fn differ_qwen_2(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("qkv_bias", true)?;
    let last = fields.layer_count_or("max_window_layers", WINDOWED_LAYERS)?;
    config.sliding_window = match fields.flag("use_sliding_window", false)? {
        true => windows::alternating(fields, config, Some(QWEN_WINDOW), |layer| {
            layer.is_multiple_of(2) && layer < last
        })?,
        false => windows::switched_off(fields, config)?,
    };
    let width = fields.intermediate_or("shared_expert_intermediate_size", 5_632)?;
    config.experts = Some(ExpertsShape {
        shared: Some(SharedExpertShape {
            intermediate: width,
            gated: true,
        }),
        ..qwen(fields, config, (60, 4), 1_408)?
    });
    Ok(())
}

fn differ_qwen_3(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.qk_norm = Some(QkNorm::Heads);
    if fields.flag("use_sliding_window", false)? {
        config.sliding_window = windows::alternating(fields, config, Some(QWEN_WINDOW), |_| true)?;
    }
    config.experts = Some(qwen(fields, config, (128, 8), 768)?);
    Ok(())
}

fn differ_olmoe(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", false)?;
    config.o_bias = config.qkv_bias;
    config.qk_norm = Some(QkNorm::Width);
    config.experts = Some(ExpertsShape {
        normalised: fields.flag("norm_topk_prob", false)?,
        ..shape(fields, config, (64, 8), config.intermediate)?
    });
    Ok(())
}

fn differ_gpt_oss(fields: &ConfigFields, config: &mut DecoderConfig) -> Result<(), ModelError> {
    config.qkv_bias = fields.flag("attention_bias", true)?;
    config.o_bias = config.qkv_bias;
    config.sinks = true;
    config.sliding_window =
        windows::alternating(fields, config, Some(128), |layer| layer.is_multiple_of(2))?;
    let unsaid = |key: &str| fields.get(key).is_none();
    if unsaid("rope_parameters") && unsaid("rope_scaling") {
        config.rope.scaling = RopeScaling::Yarn {
            factor: 32.0,
            original_max_positions: 4_096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
            attention_factor: YARN_FACTOR,
        };
    }
    let positive = |key, default: f64| {
        let value = fields.positive_opt(key)?.unwrap_or(default);
        fields.as_multiplier(key, Some(value))
    };
    config.activation = Activation::ClampedSwiglu {
        alpha: positive("swiglu_alpha", 1.702)?,
        limit: positive("swiglu_limit", 7.0)?,
    };
    config.experts = Some(ExpertsShape {
        scores: RouterScores::SoftmaxOfChosen,
        router_bias: true,
        names: ExpertNames::GPT_OSS,
        ..shape(fields, config, (128, 4), config.intermediate)?
    });
    Ok(())
}

/// YaRN's attention factor at a factor of 32: `0.1 ln(32) + 1`.
const YARN_FACTOR: f64 = 1.346_573_590_279_972_6;

/// What both Qwens share: some layers may have a plain feed-forward layer instead of experts.
fn qwen(
    fields: &ConfigFields,
    config: &DecoderConfig,
    default: (usize, usize),
    width: usize,
) -> Result<ExpertsShape, ModelError> {
    let width = fields.intermediate_or("moe_intermediate_size", width)?;
    let step = fields.layer_count_or("decoder_sparse_step", 1)?;
    if step == 0 {
        return Err(fields.bad("decoder_sparse_step", step, "must be at least 1"));
    }
    let listed = fields.layers("mlp_only_layers")?;
    let is_dense = |layer: &usize| listed.contains(layer) || !(layer + 1).is_multiple_of(step);
    Ok(ExpertsShape {
        normalised: fields.flag("norm_topk_prob", false)?,
        dense_layers: (0..config.layers).filter(is_dense).collect(),
        ..shape(fields, config, default, width)?
    })
}

/// Experts of inner width `width`, with a softmax router. `count` (experts in a layer) and `chosen`
/// (experts of a token) are the defaults where the file does not give them.
fn shape(
    fields: &ConfigFields,
    config: &DecoderConfig,
    (count, chosen): (usize, usize),
    width: usize,
) -> Result<ExpertsShape, ModelError> {
    let (count, chosen) = fields.experts((count, chosen), config.layers)?;
    Ok(ExpertsShape {
        count,
        chosen,
        intermediate: width,
        scores: RouterScores::Softmax,
        normalised: false,
        factor: 1.0,
        router_bias: false,
        correction: false,
        shared: None,
        dense_layers: Vec::new(),
        names: ExpertNames::QWEN,
    })
}
