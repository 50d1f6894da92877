//! Tiny models made here, and the paths of the real ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, write_tensors};
use serde_json::{Map, Value, json};

/// The five models of `shared/`.
pub const SHARED_MODELS: [&str; 5] = [
    "tinystories-260k",
    "tiny-qwen2",
    "tiny-qwen3",
    "tiny-mistral",
    "tiny-llama31",
];

/// A path in `shared/` (`CONCORD_SHARED`, or beside the workspace), or `None` with a line that says
/// that the test is skipped.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED")
        .map(PathBuf::from)
        .unwrap_or(beside);
    let found = shared.join(path);
    if found.exists() {
        Some(found)
    } else {
        println!(
            "skipped: {} is not there; set CONCORD_SHARED",
            found.display()
        );
        None
    }
}

/// The configuration of a Llama of two layers.
pub fn config_json() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "bos_token_id": 256, "eos_token_id": 257,
        "torch_dtype": "float32"
    })
}

/// `config_json` with keys replaced, or removed where the new value is null.
pub fn config_with(changes: Value) -> Value {
    let mut config = config_json();
    let object = config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => object.remove(key),
            value => object.insert(key.clone(), value.clone()),
        };
    }
    config
}

/// Every tensor of a model, with unlike values that bf16 holds exactly.
pub fn tensors(config: &DecoderConfig) -> BTreeMap<String, Tensor> {
    let mut count = 0u32;
    let specs = config.tensors().into_iter().map(|spec| {
        let size: usize = spec.shape.iter().product();
        let mut next = || {
            count = count.wrapping_mul(37).wrapping_add(11);
            ((count >> 7) % 200) as f32 / 128.0 - 0.75
        };
        let data: Vec<f32> = (0..size).map(|_| next()).collect();
        (spec.name, Tensor::new(&spec.shape, data).unwrap())
    });
    specs.collect()
}

/// Writes a whole model folder of `config`, with a byte-level tokenizer.
pub fn write_model(folder: &Path, config: &Value) -> BTreeMap<String, Tensor> {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tensors = tensors(&DecoderConfig::from_json(&config.to_string()).unwrap());
    let path = folder.join("model.safetensors");
    write_tensors(&path, &tensors, |_| ExportDtype::F32).unwrap();
    write_tokenizer(folder);
    tensors
}

/// A tokenizer of the 256 bytes, `<s>` = 256 in front, and `</s>` = 257 as the end.
pub fn write_tokenizer(folder: &Path) {
    let vocab: Map<String, Value> = (0..=255u8)
        .map(|byte| (byte_name(byte).to_string(), Value::from(byte)))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                       "use_regex": false});
    let tokenizer = json!({
        "version": "1.0",
        // Both must be ignored: a data set is cut by its own rule.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst",
                       "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [special(256, "<s>"), special(257, "</s>")],
        "normalizer": null, "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
        },
        "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"eos_token": {"content": "</s>"}}).to_string();
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
}

/// The printable character that byte-level tokenizers write for a byte: itself where it is
/// printable, else the next one from U+0100 on.
fn byte_name(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        char::from(byte)
    } else {
        let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
        char::from_u32(0x100 + before).unwrap()
    }
}

/// A safetensors file from a header and data, however wrong.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Asserts that a message has each of `parts`.
#[track_caller]
pub fn says(error: impl ToString, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
