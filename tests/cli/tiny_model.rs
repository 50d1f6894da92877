//! A model folder made by the test itself: two layers, 32 tokens, weights from a counter.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, write_tensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tokens that the model knows.
pub const VOCAB: usize = 32;

/// A model folder that can be spoilt.
pub struct TinyModel {
    folder: TempDir,
}

impl TinyModel {
    /// A sound model.
    pub fn new() -> Self {
        let model = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        model.write("config.json", &config());
        model.write("tokenizer.json", &tokenizer(VOCAB));
        let tokens = json!({ "bos_token": "<s>", "eos_token": "</s>" });
        model.write("tokenizer_config.json", &tokens);
        model.write_weights(|_, _| {});
        model
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Replaces a JSON file.
    pub fn write(&self, name: &str, value: &Value) {
        fs::write(self.file(name), value.to_string()).expect("the folder can be written");
    }

    /// Replaces one key of config.json.
    pub fn configure(&self, key: &str, value: Value) {
        let text = fs::read(self.file("config.json")).expect("there is a config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("it is JSON");
        config[key] = value;
        self.write("config.json", &config);
    }

    /// Replaces the weights by the usual ones, after `change` has changed the values of each by its
    /// name.
    pub fn write_weights(&self, change: impl Fn(&str, &mut Vec<f32>)) {
        let config = DecoderConfig::from_folder(self.dir()).expect("the config is sound");
        let mut count = 0_u32;
        let mut tensors = BTreeMap::new();
        for spec in config.tensors() {
            let len = spec.shape.iter().product();
            let mut values: Vec<f32> = (0..len).map(|_| next(&mut count)).collect();
            change(&spec.name, &mut values);
            let tensor = Tensor::new(&spec.shape, values).expect("shape and values fit");
            tensors.insert(spec.name, tensor);
        }
        let path = self.file("model.safetensors");
        write_tensors(&path, &tensors, |_| ExportDtype::F32).expect("the weights are finite");
    }
}

/// Numbers between -0.5 and 0.5 that look random (a step of Knuth's multiplicative hash).
fn next(count: &mut u32) -> f32 {
    *count = count.wrapping_add(1);
    let mixed = count.wrapping_mul(2_654_435_761);
    (mixed >> 8) as f32 / (1 << 24) as f32 - 0.5
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "vocab_size": VOCAB,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1,
    })
}

/// A tokenizer of whole words: `<s>`, `</s>`, `<unk>`, then w3, w4 and so on.
pub fn tokenizer(vocab: usize) -> Value {
    let special = ["<s>", "</s>", "<unk>"];
    let word = |id: usize| {
        special
            .get(id)
            .map_or(format!("w{id}"), |name| (*name).to_string())
    };
    let words: BTreeMap<String, usize> = (0..vocab).map(|id| (word(id), id)).collect();
    let added: Vec<Value> = (0..special.len())
        .map(|id| {
            json!({
                "id": id, "content": special[id], "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "<unk>" },
    })
}
