//! Turns the divisors of RoPE's frequencies (`rope_freqs.weight`), as Llama 3 has them, back into
//! the keys of `config.json` from which they were made.

use serde_json::{Map, Value, json};

use super::container::GgufFile;
use crate::error::ModelError;

/// The same in every Llama 3. The file has only the divisors that follow from them.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
/// The pre-training's positions of Llama 3, where they cannot be computed from the divisors.
const ORIGINAL_POSITIONS: f64 = 8_192.0;

/// The accepted relative difference between a divisor of the file and the one computed here: the
/// file's are rounded to f32, after several steps of another program.
const TOLERANCE: f64 = 1e-5;

/// The keys of llama3 scaling that give the divisors in the tensor `name`.
pub(super) fn llama3(
    file: &GgufFile,
    name: &str,
    rope: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Result<Map<String, Value>, ModelError> {
    let bad = |reason: &str| ModelError::BadPackedTensor {
        path: file.path().to_path_buf(),
        tensor: name.to_string(),
        reason: format!("{reason}: take the model's safetensors"),
    };
    let tensor = file.tensors.get(name);
    let tensor = tensor.ok_or_else(|| bad("it is not in the first part of the model"))?;
    let width = config.get("head_dim").and_then(Value::as_u64).unwrap_or(0);
    if tensor.format != Ok(concord_kernels::packed::BlockFormat::F32)
        || tensor.shape.iter().map(|dim| *dim as u64).ne([width / 2])
    {
        return Err(bad(
            "it must be F32, and have one number for each pair of a head",
        ));
    }
    let words = file.bytes(tensor).as_chunks().0.iter();
    let divisors: Vec<f64> = words.map(|w| f64::from(f32::from_le_bytes(*w))).collect();
    // The slowest frequencies are divided by the whole factor.
    let factor = divisors.last().copied().unwrap_or(1.0);
    let theta = rope
        .get("rope_theta")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    let pairs = divisors.len();
    let wave = |pair: usize| std::f64::consts::TAU * theta.powf(pair as f64 / pairs as f64);
    let between = divisors
        .iter()
        .position(|divisor| *divisor > 1.0 && *divisor < factor);
    let original = between.map_or(ORIGINAL_POSITIONS, |pair| {
        let smooth = (1.0 / divisors[pair] - 1.0 / factor) / (1.0 - 1.0 / factor);
        let cycles = smooth * (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR) + LOW_FREQ_FACTOR;
        (wave(pair) * cycles).round()
    });
    let expected = |pair: usize| divisor(wave(pair), original, factor);
    let is_llama3 = factor.is_finite()
        && factor > 1.0
        && (1.0..1e9).contains(&original)
        && divisors
            .iter()
            .enumerate()
            .all(|(pair, found)| (found / expected(pair) - 1.0).abs() < TOLERANCE);
    if !is_llama3 {
        return Err(bad("its divisors are not those that a Llama 3 has"));
    }
    let keys = json!({
        "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW_FREQ_FACTOR,
        "high_freq_factor": HIGH_FREQ_FACTOR,
        "original_max_position_embeddings": original as u64,
    });
    match keys {
        Value::Object(keys) => Ok(keys),
        _ => Ok(Map::new()),
    }
}

/// The divisor of a pair's frequency: 1 for a short wavelength, the factor for a long one, and
/// between the two a value that changes smoothly.
fn divisor(wave: f64, original: f64, factor: f64) -> f64 {
    if wave < original / HIGH_FREQ_FACTOR {
        1.0
    } else if wave > original / LOW_FREQ_FACTOR {
        factor
    } else {
        let smooth = (original / wave - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR);
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}
