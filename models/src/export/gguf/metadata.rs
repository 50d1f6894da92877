//! The metadata of a model: what its configuration is in GGUF, and the tensors that are part of it.

use concord_kernels::packed::BlockFormat;

use super::container::{Info, MetaValue, Metadata};
use super::types::GgufKind;
use crate::config::{DecoderConfig, Family, RopeScaling};
use crate::weights::Architecture;

/// The version of the blocks with scales.
const QUANTIZATION_VERSION: u32 = 2;

/// One layer of so many of a Gemma 3 has no window where the file does not say.
const GEMMA_3_PATTERN: usize = 6;

/// A tensor of f32 that is made of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MadeTensor {
    pub(super) info: Info,
    pub(super) values: Vec<f32>,
}

/// The metadata of a model, but for the tokenizer's. What GGUF does not say is left out here, and
/// found when the file is read again.
pub(super) fn of(
    config: &DecoderConfig,
    architecture: &Architecture,
    kind: GgufKind,
    name: &str,
) -> Metadata {
    let text = |value: &str| MetaValue::Text(value.to_string());
    let mut out = vec![
        ("general.architecture".to_string(), text(architecture.name)),
        ("general.type".to_string(), text("model")),
        ("general.name".to_string(), text(name)),
        (
            "general.file_type".to_string(),
            MetaValue::U32(kind.file_type()),
        ),
    ];
    if kind.is_quantized() {
        let version = MetaValue::U32(QUANTIZATION_VERSION);
        out.push(("general.quantization_version".to_string(), version));
    }
    let mut put = |key: &str, value| out.push((format!("{}.{key}", architecture.name), value));
    let size = |size: usize| MetaValue::U32(u32::try_from(size).unwrap_or(u32::MAX));
    let rotated = config.rotary_dim.unwrap_or(config.head_dim);
    for (key, number) in [
        ("context_length", config.max_positions),
        ("embedding_length", config.hidden),
        ("block_count", config.layers),
        ("feed_forward_length", config.intermediate),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", rotated),
        ("vocab_size", config.vocab),
    ] {
        put(key, size(number));
    }
    put(architecture.epsilon[0], MetaValue::F32(config.norm_eps));
    put("rope.freq_base", MetaValue::F32(config.rope.theta as f32));
    attention(config, architecture, &mut put);
    experts(config, architecture, &mut put);
    scaling(config, &mut put);
    out
}

/// Windows, soft caps, and the rotary embedding of the layers with a window.
fn attention(
    config: &DecoderConfig,
    architecture: &Architecture,
    put: &mut impl FnMut(&str, MetaValue),
) {
    let has = |key: &str| architecture.keys.contains(&key);
    let window = config.sliding_window.iter().flatten().next().copied();
    let is_phi = config.family == Family::Phi3;
    // A Phi 3 without windows says so.
    if let Some(window) = window.or(is_phi.then_some(0))
        && has("attention.sliding_window")
    {
        put("attention.sliding_window", MetaValue::U32(window));
    }
    if has("attention.sliding_window_pattern") {
        let unwindowed = config.unwindowed().first().map(|layer| layer + 1);
        if let Some(pattern) = unwindowed.filter(|pattern| *pattern != GEMMA_3_PATTERN) {
            put(
                "attention.sliding_window_pattern",
                MetaValue::U32(pattern as u32),
            );
        }
    }
    for (key, cap) in [
        ("attn_logit_softcapping", config.attention_soft_cap),
        ("final_logit_softcapping", config.logit_soft_cap),
    ] {
        if let Some(cap) = cap.filter(|_| has(key)) {
            put(key, MetaValue::F32(cap));
        }
    }
    if let Some(local) = config
        .local_rope
        .as_ref()
        .filter(|_| has("rope.freq_base_swa"))
    {
        put("rope.freq_base_swa", MetaValue::F32(local.theta as f32));
    }
}

fn experts(
    config: &DecoderConfig,
    architecture: &Architecture,
    put: &mut impl FnMut(&str, MetaValue),
) {
    let Some(experts) = &config.experts else {
        return;
    };
    let shared = experts.shared.map(|shared| shared.intermediate);
    for (key, number) in [
        ("expert_count", Some(experts.count)),
        ("expert_used_count", Some(experts.chosen)),
        ("expert_feed_forward_length", Some(experts.intermediate)),
        ("expert_shared_feed_forward_length", shared),
    ] {
        if let Some(number) = number.filter(|_| architecture.keys.contains(&key)) {
            put(key, MetaValue::U32(number as u32));
        }
    }
}

fn scaling(config: &DecoderConfig, put: &mut impl FnMut(&str, MetaValue)) {
    let mut keys = |kind: &str, factor: Option<f64>, original: Option<usize>| {
        put("rope.scaling.type", MetaValue::Text(kind.to_string()));
        if let Some(factor) = factor {
            put("rope.scaling.factor", MetaValue::F32(factor as f32));
        }
        if let Some(original) = original {
            let original = MetaValue::U32(original as u32);
            put("rope.scaling.original_context_length", original);
        }
    };
    match &config.rope.scaling {
        RopeScaling::Linear { factor } => keys("linear", Some(*factor), None),
        RopeScaling::Yarn {
            factor,
            original_max_positions,
            ..
        } => keys("yarn", Some(*factor), Some(*original_max_positions)),
        RopeScaling::LongRope {
            original_max_positions,
            attention_factor,
            ..
        } => {
            keys("longrope", None, Some(*original_max_positions));
            let factor = MetaValue::F32(*attention_factor as f32);
            put("rope.scaling.attn_factor", factor);
        }
        // Llama 3's is a tensor; GGUF has no dynamic one.
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Dynamic { .. } => {}
    }
}

/// The divisors of the rotary frequencies, where a model has some.
pub(super) fn made_tensors(config: &DecoderConfig) -> Vec<MadeTensor> {
    let made = |name: &str, values: Vec<f32>| MadeTensor {
        info: Info {
            name: name.to_string(),
            shape: vec![values.len()],
            format: BlockFormat::F32,
        },
        values,
    };
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect();
    match &config.rope.scaling {
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => {
            let pairs = config.head_dim / 2;
            let original = *original_max_positions as f64;
            let values = (0..pairs).map(|pair| {
                let turn = std::f64::consts::TAU;
                let wave = turn * config.rope.theta.powf(pair as f64 / pairs as f64);
                let ends = [*low_freq_factor, *high_freq_factor];
                llama_3_divisor(original / wave, *factor, ends) as f32
            });
            vec![made("rope_freqs.weight", values.collect())]
        }
        RopeScaling::LongRope { short, long, .. } => vec![
            made("rope_factors_long.weight", narrow(long)),
            made("rope_factors_short.weight", narrow(short)),
        ],
        _ => Vec::new(),
    }
}

/// The divisor of a frequency that makes `cycles` over the positions of the pre-training: the
/// factor for few, 1 for many, and between the two a mixture.
fn llama_3_divisor(cycles: f64, factor: f64, [low, high]: [f64; 2]) -> f64 {
    let share = ((cycles - low) / (high - low)).clamp(0.0, 1.0);
    1.0 / ((1.0 - share) / factor + share)
}
