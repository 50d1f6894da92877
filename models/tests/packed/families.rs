//! Models of every family as GGUF files: the configuration and the bits of their folders.

use std::fs;

use concord_kernels::Device;
use concord_models::config::{DecoderConfig, RopeScaling};
use concord_models::weights::{Dtype, ModelFolder};

use crate::gguf::logits;
use crate::gguf_writer::GgufWriter;
use crate::storages::gguf_name;
use crate::vectors::packed;

/// The number of a type of ggml.
fn kind(dtype: Option<Dtype>) -> u32 {
    match dtype {
        Some(Dtype::F16) => 1,
        Some(Dtype::BF16) => 30,
        _ => 0,
    }
}

/// Rows of heads interleaved, as the architecture `llama` has them.
fn interleaved(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let width = bytes.len() / rows;
    let row = |i: usize| {
        let (head, at) = (i / head_dim, i % head_dim);
        head * head_dim + at / 2 + at % 2 * (head_dim / 2)
    };
    (0..rows)
        .flat_map(|i| bytes[row(i) * width..][..width].to_vec())
        .collect()
}

/// What a converter writes of a folder.
fn converted(model: &ModelFolder, architecture: &str) -> GgufWriter {
    let config = model.config();
    let mut file = GgufWriter::default();
    let key = |key: &str| format!("{architecture}.{key}");
    file.string("general.architecture", architecture);
    for (name, value) in [
        ("context_length", config.max_positions),
        ("embedding_length", config.hidden),
        ("block_count", config.layers),
        ("feed_forward_length", config.intermediate),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab),
    ] {
        file.u32(&key(name), value as u32);
    }
    if let Some(window) = config.sliding_window[0] {
        file.u32(&key("attention.sliding_window"), window);
    }
    let eps = config.norm_eps.to_le_bytes().to_vec();
    file.pair(&key("attention.layer_norm_rms_epsilon"), 6, eps);
    let theta = (config.rope.theta as f32).to_le_bytes().to_vec();
    file.pair(&key("rope.freq_base"), 6, theta);
    file.u32("tokenizer.ggml.bos_token_id", 1);
    file.u32("tokenizer.ggml.eos_token_id", 2);
    if let Some(divisors) = divisors(config) {
        let bytes = divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
        file.tensor("rope_freqs.weight", &[divisors.len()], 0, bytes);
    }
    for spec in config.tensors() {
        let bytes = model.bytes(&spec.name).unwrap();
        let turned = ["q_proj", "k_proj"]
            .iter()
            .any(|part| spec.name.contains(part));
        let bytes = match turned && architecture == "llama" {
            true => interleaved(bytes, spec.shape[0], config.head_dim),
            false => bytes.to_vec(),
        };
        let name = gguf_name(&spec.name).replace("self_attn.q_norm", "attn_q_norm");
        let name = name.replace("self_attn.k_norm", "attn_k_norm");
        file.tensor(&name, &spec.shape, kind(model.dtype(&spec.name)), bytes);
    }
    file
}

/// The divisors of RoPE, in f32 as a converter makes them.
fn divisors(config: &DecoderConfig) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_max_positions,
    } = config.rope.scaling
    else {
        return None;
    };
    let original = original_max_positions as f64;
    let pairs = config.head_dim / 2;
    let of = |pair: usize| {
        let wave = std::f64::consts::TAU * config.rope.theta.powf(pair as f64 / pairs as f64);
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor as f32
        } else {
            let smooth = (original / wave - low) / (high - low);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        }
    };
    Some((0..pairs).map(of).collect())
}

#[test]
fn every_family_has_the_bits_of_its_folder() {
    for (name, architecture) in [
        ("tinystories-260k", "llama"),
        ("tiny-llama31", "llama"),
        ("tiny-mistral", "llama"),
        ("tiny-qwen2", "qwen2"),
        ("tiny-qwen3", "qwen3"),
    ] {
        let Some(folder) = packed(&format!("../../models/{name}")) else {
            return;
        };
        let folder = ModelFolder::open(&folder).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("model.gguf");
        fs::write(&path, converted(&folder, architecture).whole()).unwrap();
        let file = ModelFolder::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(file.config(), folder.config(), "{name}");
        let tokens: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 512).collect();
        let bits = |model: &ModelFolder| -> Vec<u32> {
            let logits = logits(model, Device::cpu(1), &tokens);
            logits.iter().map(|logit| logit.to_bits()).collect()
        };
        assert_eq!(bits(&file), bits(&folder), "{name}");
    }
}

#[test]
fn divisors_of_another_rule_are_refused() {
    let Some(folder) = packed("../../models/tiny-llama31") else {
        return;
    };
    let folder = ModelFolder::open(&folder).unwrap();
    let mut file = converted(&folder, "llama");
    file.pair("llama.rope.freq_base", 6, 10_000_f32.to_le_bytes().to_vec());
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    fs::write(&path, file.whole()).unwrap();
    let error = ModelFolder::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("rope_freqs.weight") && error.contains("divisors"),
        "{error}"
    );
}
