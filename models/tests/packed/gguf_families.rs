//! The families that are read of GGUF: the small models of `tests/families` as GGUF files, by the
//! names and metadata of llama.cpp's converter. As safetensors and as GGUF they are one model: the
//! same configuration, the same numbers, the same bits of every logit.

use std::fs;
use std::path::{Path, PathBuf};

use concord_kernels::{Device, Tensor};
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::encoders::f32s;
use crate::gguf::logits;
use crate::gguf_writer::GgufWriter;

/// A folder of `tests/families`, the architecture, and what is added to the weights of norms.
const FAMILIES: [(&str, &str, f32); 9] = [
    ("gemma", "gemma", 1.0),
    ("gemma2", "gemma2", 1.0),
    ("gemma3", "gemma3", 1.0),
    ("phi3", "phi3", 0.0),
    ("mixtral", "llama", 0.0),
    ("qwen2_moe", "qwen2moe", 0.0),
    ("qwen3_moe", "qwen3moe", 0.0),
    ("olmo2", "olmo2", 0.0),
    ("starcoder2", "starcoder2", 0.0),
];

fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(name)
}

/// The parts of a block, as a family calls them.
const PARTS: [(&str, &str); 23] = [
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
];

/// The name in GGUF; of an expert's matrix that of the tensor that holds all, and its number.
fn gguf_name(name: &str, has_sandwich: bool) -> (String, Option<usize>) {
    let (module, kind) = name.rsplit_once('.').unwrap();
    let whole = |part: &str| (format!("{part}.{kind}"), None);
    match module {
        "model.embed_tokens" => return whole("token_embd"),
        "model.norm" => return whole("output_norm"),
        "lm_head" => return whole("output"),
        _ => {}
    }
    let rest = module.strip_prefix("model.layers.").unwrap();
    let (layer, part) = rest.split_once('.').unwrap();
    if let Some((_, expert)) = part.split_once(".experts.") {
        let (number, matrix) = expert.split_once('.').unwrap();
        let stacked = match matrix {
            "gate_proj" | "w1" => "ffn_gate_exps",
            "up_proj" | "w3" => "ffn_up_exps",
            _ => "ffn_down_exps",
        };
        let number = number.parse().unwrap();
        return (format!("blk.{layer}.{stacked}.{kind}"), Some(number));
    }
    let part = match (part, has_sandwich) {
        ("post_attention_layernorm", false) => "ffn_norm",
        _ => PARTS.iter().find(|(known, _)| *known == part).unwrap().1,
    };
    (format!("blk.{layer}.{part}.{kind}"), None)
}

/// Rows of each head interleaved, as the architecture `llama` has them.
fn interleaved(tensor: &Tensor, heads: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = tensor.data().chunks(tensor.rows_cols().1).collect();
    let width = rows.len() / heads;
    let half = width / 2;
    let turned = rows
        .chunks(width)
        .flat_map(|head| (0..width).map(move |row| head[row / 2 + row % 2 * half]));
    turned.flatten().copied().collect()
}

/// A value of a configuration, wherever it stands.
fn number(config: &Value, keys: &[&str]) -> Option<f64> {
    keys.iter().find_map(|key| config.pointer(key)?.as_f64())
}

/// The metadata that the converter makes of a configuration.
fn metadata(file: &mut GgufWriter, config: &Value, architecture: &str, folder: &ModelFolder) {
    file.string("general.architecture", architecture);
    let key = |key: &str| format!("{architecture}.{key}");
    let whole: [(&str, &[&str]); 12] = [
        ("context_length", &["/max_position_embeddings"]),
        ("embedding_length", &["/hidden_size"]),
        ("block_count", &["/num_hidden_layers"]),
        ("feed_forward_length", &["/intermediate_size"]),
        ("attention.head_count", &["/num_attention_heads"]),
        ("attention.head_count_kv", &["/num_key_value_heads"]),
        ("expert_count", &["/num_local_experts", "/num_experts"]),
        ("expert_used_count", &["/num_experts_per_tok"]),
        ("expert_feed_forward_length", &["/moe_intermediate_size"]),
        (
            "expert_shared_feed_forward_length",
            &["/shared_expert_intermediate_size"],
        ),
        (
            "rope.scaling.original_context_length",
            &["/original_max_position_embeddings"],
        ),
        ("attention.sliding_window", &["/sliding_window"]),
    ];
    for (name, keys) in whole {
        let is_windowed = ["gemma2", "gemma3", "phi3", "llama"].contains(&architecture);
        if name == "attention.sliding_window" && !is_windowed {
            continue;
        }
        if let Some(value) = number(config, keys) {
            file.u32(&key(name), value as u32);
        }
    }
    let width = folder.config().head_dim as u32;
    file.u32(&key("attention.key_length"), width);
    file.u32(&key("attention.value_length"), width);
    let rotated = folder.config().rotary_dim.map_or(width, |dim| dim as u32);
    file.u32(&key("rope.dimension_count"), rotated);
    let floats: [(&str, &[&str]); 6] = [
        ("attention.layer_norm_rms_epsilon", &["/rms_norm_eps"]),
        ("attention.layer_norm_epsilon", &["/norm_epsilon"]),
        (
            "rope.freq_base",
            &[
                "/rope_parameters/full_attention/rope_theta",
                "/rope_parameters/rope_theta",
                "/rope_theta",
            ],
        ),
        (
            "rope.freq_base_swa",
            &["/rope_parameters/sliding_attention/rope_theta"],
        ),
        ("attn_logit_softcapping", &["/attn_logit_softcapping"]),
        ("final_logit_softcapping", &["/final_logit_softcapping"]),
    ];
    for (name, keys) in floats {
        if let Some(value) = number(config, keys) {
            file.pair(&key(name), 6, (value as f32).to_le_bytes().to_vec());
        }
    }
    rope_of_gemma(file, config, architecture);
}

/// What a Gemma 3 has beside: where its windows are, and the scaling of the other layers.
fn rope_of_gemma(file: &mut GgufWriter, config: &Value, architecture: &str) {
    let key = |key: &str| format!("{architecture}.{key}");
    if architecture == "gemma3" {
        // Of its three layers the second has no window.
        file.u32(&key("attention.sliding_window_pattern"), 2);
    }
    let linear = "/rope_parameters/full_attention/factor";
    if let Some(factor) = number(config, &[linear]) {
        file.string(&key("rope.scaling.type"), "linear");
        let factor = (factor as f32).to_le_bytes().to_vec();
        file.pair(&key("rope.scaling.factor"), 6, factor);
    }
}

/// LongRoPE's divisors.
fn divisors(file: &mut GgufWriter, config: &Value) {
    for (name, list) in [("short", "short_factor"), ("long", "long_factor")] {
        let found = ["/rope_parameters", "/rope_scaling"]
            .iter()
            .find_map(|at| config.pointer(&format!("{at}/{list}"))?.as_array());
        let Some(found) = found else { continue };
        let numbers: Vec<f32> = found.iter().map(|n| n.as_f64().unwrap() as f32).collect();
        let shape = [numbers.len()];
        let name = format!("rope_factors_{name}.weight");
        file.tensor(&name, &shape, 0, f32s(numbers));
    }
}

/// The configuration, but for what GGUF has no key for, where llama.cpp has a rule: the scale of
/// attention is that of a head, a StarCoder2 has no window; and divisors are f32.
pub fn sayable(name: &str, mut config: Value) -> Value {
    match name {
        "gemma2" | "gemma3" => config["query_pre_attn_scalar"] = config["head_dim"].clone(),
        "phi3" => config["rope_parameters"]["short_factor"] = json!([1.0, 1.125, 1.25]),
        "starcoder2" => config["sliding_window"] = Value::Null,
        _ => {}
    }
    config
}

/// The same model with that configuration, and the weights of norms that 1 + w can hold.
fn rounded(folder: &ModelFolder, config: &Value, into: &Path, one: f32) {
    let tensors = folder.config().tensors().into_iter().map(|spec| {
        let mut tensor = folder.load(&spec.name).unwrap();
        if spec.name.ends_with("norm.weight") {
            let values = tensor.values_mut().unwrap();
            values.iter_mut().for_each(|w| *w = (*w + one) - one);
        }
        (spec.name, tensor)
    });
    let path = into.join("model.safetensors");
    write_tensors(&path, &tensors.collect(), |_| ExportDtype::F32).unwrap();
    fs::write(into.join("config.json"), config.to_string()).unwrap();
}

fn as_gguf(folder: &ModelFolder, config: &Value, architecture: &str, one: f32) -> GgufWriter {
    let mut file = GgufWriter::default();
    metadata(&mut file, config, architecture, folder);
    divisors(&mut file, config);
    let specs = folder.config().tensors();
    let has_sandwich = specs
        .iter()
        .any(|spec| spec.name.contains("post_feedforward"));
    let mut stacked: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for spec in specs {
        let tensor = folder.load(&spec.name).unwrap();
        let (name, expert) = gguf_name(&spec.name, has_sandwich);
        let (heads, kv_heads) = (folder.config().heads, folder.config().kv_heads);
        let values = match (architecture, name.ends_with("norm.weight")) {
            (_, true) => tensor.data().iter().map(|w| w + one).collect(),
            ("llama", _) if name.contains("attn_q.") => interleaved(&tensor, heads),
            ("llama", _) if name.contains("attn_k.") => interleaved(&tensor, kv_heads),
            _ => tensor.data().to_vec(),
        };
        let bytes = f32s(values);
        match (
            expert,
            stacked.iter_mut().find(|(known, ..)| *known == name),
        ) {
            (Some(number), Some((_, shape, all))) => {
                assert_eq!(shape[0], number);
                shape[0] += 1;
                all.extend(bytes);
            }
            (Some(_), None) => stacked.push((name, [&[1], &spec.shape[..]].concat(), bytes)),
            (None, _) => {
                let shape = match name.contains("ffn_gate_inp_shexp") {
                    true => spec.shape[1..].to_vec(),
                    false => spec.shape,
                };
                file.tensor(&name, &shape, 0, bytes);
            }
        }
    }
    for (name, shape, bytes) in stacked {
        file.tensor(&name, &shape, 0, bytes);
    }
    file
}

fn bits(model: &ModelFolder) -> Vec<u32> {
    let tokens: Vec<u32> = (0..40)
        .map(|i| (i * 7 + 3) % model.config().vocab as u32)
        .collect();
    let logits = logits(model, Device::cpu(2), &tokens);
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn as_gguf_and_as_safetensors_a_model_is_one() {
    for (name, architecture, one) in FAMILIES {
        let from = folder_of(name);
        let original = ModelFolder::open(&from).unwrap();
        let plain = tempfile::tempdir().unwrap();
        let config = serde_json::from_str(original.config_json()).unwrap();
        let config = sayable(name, config);
        rounded(&original, &config, plain.path(), one);
        let expected = ModelFolder::open(plain.path()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let file = as_gguf(&expected, &config, architecture, one);
        fs::write(&path, file.whole()).unwrap();
        let found = ModelFolder::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        for spec in expected.config().tensors() {
            let (found, expected) = (found.load(&spec.name), expected.load(&spec.name));
            assert_eq!(found.unwrap(), expected.unwrap(), "{name}: {}", spec.name);
        }
        assert_eq!(
            found.config().canonical(),
            expected.config().canonical(),
            "{name}"
        );
        assert_eq!(bits(&found), bits(&expected), "{name}");
        // What is written of it is opened by transformers, which wants the type of the model.
        let said: Value = serde_json::from_str(found.config_json()).unwrap();
        for key in ["architectures", "model_type"] {
            assert_eq!(said[key], config[key], "{name}: {key}");
        }
        // A configuration beside it says the same.
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let beside = ModelFolder::open(folder.path());
        beside.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn what_no_file_of_experts_may_say() {
    let from = folder_of("mixtral");
    let folder = ModelFolder::open(&from).unwrap();
    let config: Value = serde_json::from_str(folder.config_json()).unwrap();
    let whole = as_gguf(&folder, &config, "llama", 0.0);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let name = "blk.0.ffn_down_exps.weight";
    for (shape, parts) in [
        (vec![1 << 11, 1, 1], ["ffn_down_exps", "1024"]),
        (vec![1, 1], ["ffn_down_exps", "experts with a matrix"]),
        (vec![0, 8, 8], ["ffn_down_exps", "experts with a matrix"]),
        (vec![3, 4, 2], ["ffn_down_exps", "[3, 32, 40]"]),
    ] {
        let mut file = whole.clone();
        file.taken(name);
        let count = shape.iter().product();
        file.tensor(name, &shape, 0, f32s(vec![0.5; count]));
        fs::write(&path, file.whole()).unwrap();
        let error = ModelFolder::open(&path).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error} does not say {part}");
        }
    }
}
