//! What the configuration of some architectures has beside that of a Llama.

use serde_json::{Map, Value, json};

use super::container::GgufFile;
use super::fields::Fields;
use crate::error::ModelError;

/// Layers of the largest Gemma 2 and 3, whose attention is scaled by another width than a head's:
/// llama.cpp knows them by this number, too, for the file does not say.
const WIDE_GEMMA_2: u64 = 46;
const WIDE_GEMMA_3: u64 = 62;

/// More layers than any decoder has that is read.
const LAYERS_MAX: u64 = 1 << 10;

/// The tensors of LongRoPE's divisors, for short texts and for long ones.
pub(super) const DIVISORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// The base of Gemma 3's layers with a window where the file does not say.
const LOCAL_THETA: f64 = 10_000.0;
/// One layer of so many of a Gemma 3 has no window.
const GEMMA_3_PATTERN: u64 = 6;

/// How far an attention factor may be from the one that transformers makes of the lengths.
const TOLERANCE: f64 = 1e-6;

/// Adds the keys of the architecture to those of all.
pub(super) fn add(
    fields: &Fields,
    config: &mut Map<String, Value>,
    has: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    match fields.architecture.name {
        "gemma2" => gemma(fields, config, WIDE_GEMMA_2),
        "gemma3" => {
            gemma(fields, config, WIDE_GEMMA_3)?;
            let pattern = fields.whole("attention.sliding_window_pattern")?;
            let pattern = pattern.unwrap_or(GEMMA_3_PATTERN);
            config.insert("sliding_window_pattern".to_string(), json!(pattern));
            let local = fields.number("rope.freq_base_swa")?;
            let local = json!({"rope_theta": local.unwrap_or(json!(LOCAL_THETA)),
                               "rope_type": "default"});
            let global = config.remove("rope_parameters").unwrap_or_default();
            let both = json!({"full_attention": global, "sliding_attention": local});
            config.insert("rope_parameters".to_string(), both);
            Ok(())
        }
        "phi3" => phi3(fields, config),
        "qwen2moe" | "qwen3moe" => {
            // llama.cpp divides the weights of a token's experts by their sum in a Qwen 3 alone.
            let is_normalised = fields.architecture.name == "qwen3moe";
            config.insert("norm_topk_prob".to_string(), json!(is_normalised));
            let layers = size(config, "num_hidden_layers").min(LAYERS_MAX);
            let is_dense = |layer: &u64| !has(&format!("model.layers.{layer}.mlp.gate.weight"));
            let dense: Vec<u64> = (0..layers).filter(is_dense).collect();
            config.insert("mlp_only_layers".to_string(), json!(dense));
            Ok(())
        }
        "starcoder2" => {
            config.insert("use_bias".to_string(), json!(true));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn size(config: &Map<String, Value>, key: &str) -> u64 {
    config.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn gemma(fields: &Fields, config: &mut Map<String, Value>, wide: u64) -> Result<(), ModelError> {
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        // 0 is none.
        let cap = fields.number(key)?.filter(|cap| cap.as_f64() != Some(0.0));
        if let Some(cap) = cap {
            config.insert(key.to_string(), cap);
        }
    }
    let scalar = match size(config, "num_hidden_layers") == wide {
        true => size(config, "hidden_size").checked_div(size(config, "num_attention_heads")),
        false => Some(size(config, "head_dim")),
    };
    config.insert("query_pre_attn_scalar".to_string(), json!(scalar));
    Ok(())
}

/// LongRoPE's divisors are tensors, of which a short and a long text have different ones.
fn phi3(fields: &Fields, config: &mut Map<String, Value>) -> Result<(), ModelError> {
    let width = size(config, "head_dim");
    let rotated = fields.whole("rope.dimension_count")?.unwrap_or(width);
    let mut rope = match config.remove("rope_parameters") {
        Some(Value::Object(rope)) => rope,
        _ => Map::new(),
    };
    if rotated != width {
        let share = rotated as f64 / width as f64;
        rope.insert("partial_rotary_factor".to_string(), json!(share));
    }
    let [short, long] = DIVISORS.map(|name| divisors(fields.file, name));
    let (short, long) = (short?, long?);
    if short.is_some() != long.is_some() {
        let missing = DIVISORS[usize::from(short.is_some())];
        return Err(ModelError::MissingTensor {
            path: fields.file.path().to_path_buf(),
            tensor: missing.to_string(),
        });
    }
    if let (Some(short), Some(long)) = (short, long) {
        let original = fields.whole("rope.scaling.original_context_length")?;
        let original = original.ok_or_else(|| {
            fields.bad("rope.scaling.original_context_length", "it must be there")
        })?;
        rope.insert("rope_type".to_string(), json!("longrope"));
        rope.insert("short_factor".to_string(), short);
        rope.insert("long_factor".to_string(), long);
        let key = "original_max_position_embeddings";
        rope.insert(key.to_string(), json!(original));
        config.insert(key.to_string(), json!(original));
        let stretch = size(config, "max_position_embeddings") as f64 / original as f64;
        let usual = match stretch > 1.0 {
            true => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
            false => 1.0,
        };
        let factor = fields.number("rope.scaling.attn_factor")?;
        let is_usual = |factor: &Value| {
            factor
                .as_f64()
                .is_some_and(|factor| (factor / usual - 1.0).abs() < TOLERANCE)
        };
        if let Some(factor) = factor.filter(|factor| !is_usual(factor)) {
            rope.insert("attention_factor".to_string(), factor);
        }
    }
    config.insert("rope_parameters".to_string(), Value::Object(rope));
    Ok(())
}

/// The numbers of an F32 tensor of the file, exactly; nothing where there is none.
fn divisors(file: &GgufFile, name: &str) -> Result<Option<Value>, ModelError> {
    let Some(tensor) = file.tensors.get(name) else {
        return Ok(None);
    };
    if tensor.format != Ok(concord_kernels::packed::BlockFormat::F32) {
        return Err(ModelError::BadPackedTensor {
            path: file.path().to_path_buf(),
            tensor: name.to_string(),
            reason: "divisors must be F32: take the model's safetensors".to_string(),
        });
    }
    let words = file.bytes(tensor).as_chunks().0.iter();
    let numbers = words.map(|word| f64::from(f32::from_le_bytes(*word)));
    Ok(Some(Value::from(numbers.collect::<Vec<f64>>())))
}
