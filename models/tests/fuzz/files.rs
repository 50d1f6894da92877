//! What is changed: one small model in every format.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::gguf_writer::GgufWriter;
use crate::mutate::{self, Draw};
use crate::packed::packed_models;

/// A file that is changed, and those beside it.
pub struct Target {
    pub name: &'static str,
    /// The file that is changed.
    file: &'static str,
    bytes: Vec<u8>,
    beside: Vec<(&'static str, Vec<u8>)>,
    change: Change,
    /// Whether the file is the model, and not its folder.
    is_model: bool,
}

enum Change {
    /// Bytes up to here.
    Bytes(usize),
    Json,
}

impl Target {
    /// Writes the files as they are.
    pub fn write(&self, folder: &Path) {
        for (name, bytes) in &self.beside {
            fs::write(folder.join(name), bytes).unwrap();
        }
        self.change(folder, &self.bytes);
    }

    /// The file as it is, which is the first input of a fuzzer.
    #[allow(dead_code, reason = "the package `fuzz` takes it")]
    pub fn seed(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the file anew, changed.
    pub fn change(&self, folder: &Path, changed: &[u8]) {
        // Anew: a file that is cut short under the map of another reader would end this process.
        let path = folder.join(self.file);
        let _ = fs::remove_file(&path);
        fs::write(path, changed).unwrap();
    }

    /// What is opened.
    pub fn opened(&self, folder: &Path) -> PathBuf {
        match self.is_model {
            true => folder.join(self.file),
            false => folder.to_path_buf(),
        }
    }

    /// The file, changed.
    pub fn mutated(&self, draw: &mut Draw) -> Vec<u8> {
        match self.change {
            Change::Bytes(reach) => mutate::bytes(&self.bytes, reach, draw),
            Change::Json if draw.below(8) == 0 => {
                mutate::bytes(&self.bytes, self.bytes.len(), draw)
            }
            Change::Json => {
                let object: Value = serde_json::from_slice(&self.bytes).unwrap();
                mutate::object(&object, draw).to_string().into_bytes()
            }
        }
    }
}

/// A file of these tests, also where the package `fuzz` compiles this.
fn own(path: &str) -> Vec<u8> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests");
    fs::read(tests.join(path)).unwrap()
}

pub fn targets() -> Vec<Target> {
    let config = || own("io/pickles/config.json");
    let expected = || own("io/pickles/expected.safetensors");
    let pickle = |name: &'static str, bytes: Vec<u8>| Target {
        name,
        file: "pytorch_model.bin",
        change: Change::Bytes(bytes.len()),
        bytes,
        beside: vec![("config.json", config())],
        is_model: false,
    };
    let mut all = vec![
        Target {
            name: "safetensors",
            file: "model.safetensors",
            change: Change::Bytes(2_000),
            bytes: expected(),
            beside: vec![("config.json", config())],
            is_model: false,
        },
        pickle(
            "pickle in a zip archive",
            own("io/pickles/pytorch_model.bin"),
        ),
        pickle("pickles in a row", own("io/pickles/legacy.bin")),
        Target {
            name: "config.json",
            file: "config.json",
            change: Change::Json,
            bytes: config(),
            beside: vec![("model.safetensors", expected())],
            is_model: false,
        },
        index(expected(), config()),
    ];
    for (name, config, bytes) in packed_models() {
        all.push(Target {
            name,
            file: "model.safetensors",
            change: Change::Bytes(3_000),
            bytes,
            beside: vec![("config.json", config.to_string().into_bytes())],
            is_model: false,
        });
    }
    for (name, file) in [("GGUF", gguf(false)), ("GGUF with a tokenizer", gguf(true))] {
        let bytes = file.whole();
        all.push(Target {
            name,
            file: "model.gguf",
            change: Change::Bytes(3_000),
            bytes,
            beside: Vec::new(),
            is_model: true,
        });
    }
    for family in ["gemma3", "phi3", "qwen2_moe", "gpt_oss", "granite"] {
        let file = |name: &str| own(&format!("families/{family}/{name}"));
        all.push(Target {
            name: family,
            file: "config.json",
            change: Change::Json,
            bytes: file("config.json"),
            beside: vec![("model.safetensors", file("model.safetensors"))],
            is_model: false,
        });
    }
    all
}

fn index(weights: Vec<u8>, config: Vec<u8>) -> Target {
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&weights[8..header]).unwrap();
    let names = header.as_object().unwrap().keys();
    let names = names.filter(|name| name.as_str() != "__metadata__");
    let map = names.map(|name| (name.clone(), json!("model-1.safetensors")));
    let map: serde_json::Map<String, Value> = map.collect();
    Target {
        name: "index",
        file: "model.safetensors.index.json",
        change: Change::Json,
        bytes: json!({"weight_map": map}).to_string().into_bytes(),
        beside: vec![("model-1.safetensors", weights), ("config.json", config)],
        is_model: false,
    }
}

/// A Llama of one layer.
fn gguf(has_tokenizer: bool) -> GgufWriter {
    let mut file = GgufWriter::default();
    file.string("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 32),
        ("embedding_length", 8),
        ("block_count", 1),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        file.u32(&format!("llama.{key}"), value);
    }
    let eps = 1e-5_f32.to_le_bytes().to_vec();
    file.pair("llama.attention.layer_norm_rms_epsilon", 6, eps);
    if has_tokenizer {
        file.string("tokenizer.ggml.model", "llama");
        let tokens = ["<unk>", "a", "b", "ab", "<0x00>"];
        file.strings("tokenizer.ggml.tokens", &tokens);
        let scores = [0.0_f32, -3.0, -4.0, -1.0, 0.0]
            .map(f32::to_le_bytes)
            .concat();
        let list = [&6_u32.to_le_bytes()[..], &5_u64.to_le_bytes(), &scores].concat();
        file.pair("tokenizer.ggml.scores", 9, list);
        file.u32("tokenizer.ggml.unknown_token_id", 0);
        file.string("tokenizer.chat_template", "{{ messages[0]['content'] }}");
    }
    for (name, shape) in [
        ("token_embd", vec![20, 8]),
        ("output_norm", vec![8]),
        ("blk.0.attn_norm", vec![8]),
        ("blk.0.attn_q", vec![8, 8]),
        ("blk.0.attn_k", vec![4, 8]),
        ("blk.0.attn_v", vec![4, 8]),
        ("blk.0.attn_output", vec![8, 8]),
        ("blk.0.ffn_norm", vec![8]),
        ("blk.0.ffn_gate", vec![12, 8]),
        ("blk.0.ffn_up", vec![12, 8]),
        ("blk.0.ffn_down", vec![8, 12]),
    ] {
        let count: usize = shape.iter().product();
        let bytes = 0.5_f32.to_le_bytes().repeat(count);
        file.tensor(&format!("{name}.weight"), &shape, 0, bytes);
    }
    file
}
