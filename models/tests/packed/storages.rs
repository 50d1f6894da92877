//! One set of values in every storage that can hold it: the same bits of everything computed.
//!
//! The values of the matrices are -1, 0, 1 and 2, times a power of two.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_kernels::Device;
use concord_kernels::packed::BlockFormat;
use concord_models::config::DecoderConfig;
use concord_models::weights::ModelFolder;
use serde_json::{Map, Value, json};

use crate::encoders::{BLOCKS, f32s};
use crate::gguf::logits;
use crate::gguf_writer::GgufWriter;
use crate::methods::{Store, methods, plain_bf16, plain_f32};

const VOCAB: usize = 64;
pub const TOKENS: [u32; 7] = [1, 5, 60, 33, 2, 2, 17];

pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "bos_token_id": null, "eos_token_id": [], "tie_word_embeddings": false
    })
}

/// The matrices as levels from -1 to 2, the vectors as they are.
struct Levels {
    matrices: BTreeMap<String, ([usize; 2], Vec<i8>)>,
    vectors: BTreeMap<String, Vec<f32>>,
}

fn levels() -> Levels {
    let config = DecoderConfig::from_json(&config().to_string()).unwrap();
    let mut state = 12_345_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let (mut matrices, mut vectors) = (BTreeMap::new(), BTreeMap::new());
    for spec in config.tensors() {
        match spec.shape.as_slice() {
            &[rows, cols] => {
                let levels = (0..rows * cols).map(|_| (next() % 4) as i8 - 1).collect();
                matrices.insert(spec.name, ([rows, cols], levels));
            }
            other => {
                let count = other.iter().product::<usize>();
                let vector = (0..count).map(|_| 0.5 + (next() % 64) as f32 / 64.0);
                vectors.insert(spec.name, vector.collect());
            }
        }
    }
    Levels { matrices, vectors }
}

/// A matrix of the model as levels.
pub fn matrix(name: &str) -> ([usize; 2], Vec<i8>) {
    levels().matrices.remove(name).unwrap()
}

/// A safetensors folder: embedding and head as they are, the layers' matrices as `store` has them.
fn write_folder(folder: &Path, quantization: Value, store: Store) {
    write_model(folder, quantization, |module| {
        match module.contains("layers") {
            true => store,
            false => plain_f32,
        }
    });
}

/// A safetensors folder, each matrix as `store_of` says by its module.
pub fn write_model(folder: &Path, quantization: Value, store_of: impl Fn(&str) -> Store) {
    let mut config = config();
    if !quantization.is_null() {
        config["quantization_config"] = quantization;
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let Levels { matrices, vectors } = levels();
    let mut tensors = Vec::new();
    for (name, (shape, levels)) in &matrices {
        let module = name.strip_suffix(".weight").unwrap();
        for (end, dtype, shape, bytes) in store_of(module)(*shape, levels) {
            tensors.push((format!("{module}{end}"), dtype, shape, bytes));
        }
    }
    for (name, vector) in &vectors {
        let bytes = f32s(vector.iter().copied());
        tensors.push((name.clone(), "F32", vec![vector.len()], bytes));
    }
    write_file(&folder.join("model.safetensors"), &tensors);
}

/// A name, a type, a shape and the bytes.
pub type RawTensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A safetensors file.
pub fn write_file(path: &Path, tensors: &[RawTensor]) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
}

/// The names of GGUF; q and k interleaved, as the architecture `llama` has them.
pub fn gguf_name(name: &str) -> String {
    let fixed = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];
    if let Some((_, gguf)) = fixed.iter().find(|(known, _)| *known == name) {
        return (*gguf).to_string();
    }
    let name = name.replace("model.layers.", "blk.");
    let parts = [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts
        .iter()
        .fold(name, |name, (from, to)| name.replace(from, to))
}

fn interleaved(levels: &[i8], cols: usize) -> Vec<i8> {
    let rows: Vec<&[i8]> = levels.chunks(cols).collect();
    let heads = rows.chunks(64);
    heads
        .flat_map(|head| (0..64).map(move |row| head[row / 2 + row % 2 * 32]))
        .flatten()
        .copied()
        .collect()
}

/// The model as a GGUF file, its matrices in one type.
pub fn gguf(kind: u32, elements: usize, block: fn(&[i8]) -> Vec<u8>) -> GgufWriter {
    let mut file = GgufWriter::model("llama", VOCAB as u32);
    let Levels { matrices, vectors } = levels();
    for (name, ([rows, cols], levels)) in &matrices {
        let is_turned = name.contains("q_proj") || name.contains("k_proj");
        let levels = match is_turned {
            true => interleaved(levels, *cols),
            false => levels.clone(),
        };
        let bytes = levels.chunks(elements).flat_map(block).collect();
        file.tensor(&gguf_name(name), &[*rows, *cols], kind, bytes);
    }
    for (name, vector) in &vectors {
        let bytes = f32s(vector.iter().copied());
        file.tensor(&gguf_name(name), &[vector.len()], 0, bytes);
    }
    file
}

/// A Q4_K model, for tests of broken files.
pub fn q4_k() -> GgufWriter {
    let (_, kind, elements, block) = BLOCKS[10];
    gguf(kind, elements, block)
}

fn bits(model: &ModelFolder) -> Vec<u32> {
    let logits = logits(model, Device::cpu(2), &TOKENS);
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn same_tensors(model: &ModelFolder, expected: &ModelFolder, what: &str) {
    assert_eq!(model.config(), expected.config(), "{what}");
    for spec in expected.config().tensors() {
        let (found, expected) = (model.load(&spec.name), expected.load(&spec.name));
        let (found, expected) = (found.unwrap(), expected.unwrap());
        let is_same = found
            .data()
            .iter()
            .zip(expected.data())
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(
            is_same && found.shape() == expected.shape(),
            "{what}: {}",
            spec.name
        );
    }
}

/// Writes the model by one of [`methods`].
pub fn write_packed(folder: &Path, quantization: Value, store: Store) {
    write_folder(folder, quantization, store);
}

#[test]
fn one_set_of_values_has_one_result_however_it_is_stored() {
    let plain = tempfile::tempdir().unwrap();
    write_folder(plain.path(), Value::Null, plain_f32);
    let plain = ModelFolder::open(plain.path()).unwrap();
    let expected = bits(&plain);
    assert!(expected.iter().any(|bits| *bits != expected[0]));
    for (name, quantization, store) in methods() {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), quantization, store);
        let model = ModelFolder::open(folder.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        same_tensors(&model, &plain, name);
        assert_eq!(bits(&model), expected, "{name}");
        if name != "BF16" {
            assert_eq!(model.config_json(), plain.config_json(), "{name}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, kind, elements, block) in BLOCKS {
        let path = folder.path().join("model.gguf");
        fs::write(&path, gguf(kind, elements, block).whole()).unwrap();
        let model = ModelFolder::open(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        same_tensors(&model, &plain, name);
        assert_eq!(bits(&model), expected, "{name}");
    }
}

/// A matrix that is kept as blocks has the same numbers.
#[test]
fn matrices_as_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (mut moved, mut mapped) = (0, 0);
    for (name, kind, elements, block) in BLOCKS {
        fs::write(&path, gguf(kind, elements, block).whole()).unwrap();
        let model = ModelFolder::open(&path).unwrap();
        for spec in model.config().tensors() {
            let found = model.blocks(&spec.name).unwrap();
            assert_eq!(
                found.is_some(),
                spec.shape.len() == 2,
                "{name} {}",
                spec.name
            );
            let Some(found) = found else { continue };
            let mut numbers = vec![0.0; found.rows * found.cols];
            found.format.decode(found.bytes(), &mut numbers);
            assert_eq!(
                numbers,
                model.load(&spec.name).unwrap().data(),
                "{name} {}",
                spec.name
            );
            match found.range.start {
                0 => moved += 1,
                _ => mapped += 1,
            }
        }
    }
    // q and k of two layers are in another order.
    assert_eq!(moved, BLOCKS.len() * 4);
    assert!(mapped > moved);
}

/// Parts that lie in several tensors are repacked, with the same numbers and near the same bytes.
#[test]
fn packed_matrices_are_kept_as_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let mut forms = Vec::new();
    for (method, quantization, store) in methods() {
        write_folder(folder.path(), quantization, store);
        let model = ModelFolder::open(folder.path()).unwrap();
        let form = model.stored_form(name).unwrap();
        let Some(found) = model.blocks(name).unwrap() else {
            assert_eq!(form.format, BlockFormat::F32, "{method}");
            continue;
        };
        assert_eq!(form.format, found.format, "{method}");
        let expected = model.load(name).unwrap();
        let mut numbers = vec![0.0; found.rows * found.cols];
        found.format.decode(found.bytes(), &mut numbers);
        assert_eq!(numbers, expected.data(), "{method}");
        let mut sent = Vec::new();
        let taken = model.each_stored(name, &mut |bytes| {
            sent.extend_from_slice(bytes);
            Ok(())
        });
        taken.unwrap();
        assert_eq!(sent, found.bytes(), "{method}");
        let (shape, levels) = matrix(name);
        let stored: usize = store(shape, &levels).iter().map(|part| part.3.len()).sum();
        assert!(found.bytes().len() <= stored + stored / 8, "{method}");
        forms.push((method, found.format.name()));
    }
    assert_eq!(
        forms,
        [
            ("BF16", "BF16"),
            ("GPTQ", "U4_128"),
            ("AWQ", "U4_128"),
            ("compressed-tensors", "U4_64"),
            ("FP8", "E4M3_64"),
            ("FP8 with powers of two", "E4M3_64"),
            ("compressed-tensors, int8", "U8_64"),
            ("bitsandbytes, int8", "INT8_64"),
        ]
    );
}

/// The bytes for a content address do not depend on how the numbers are stored, if the dtype is the
/// same.
#[test]
fn bytes_are_those_of_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let collected = |model: &ModelFolder, name: &str| {
        let mut all = Vec::new();
        let taken = model.each_stored(name, &mut |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        });
        taken.unwrap();
        let format = model.stored_form(name).unwrap().format;
        let mut numbers = vec![0.0; all.len() / format.bytes() * format.elements()];
        format.decode(&all, &mut numbers);
        numbers
    };
    let plain = tempfile::tempdir().unwrap();
    for (index, store) in [
        (0, plain_f32 as Store),
        (2, plain_bf16),
        (3, plain_f32),
        (10, plain_f32),
    ] {
        write_folder(plain.path(), Value::Null, store);
        let plain = ModelFolder::open(plain.path()).unwrap();
        let (name, kind, elements, block) = BLOCKS[index];
        let path = folder.path().join("model.gguf");
        fs::write(&path, gguf(kind, elements, block).whole()).unwrap();
        let model = ModelFolder::open(&path).unwrap();
        for spec in plain.config().layer_tensors(1) {
            let what = format!("{name} {}", spec.name);
            assert_eq!(model.dtype(&spec.name), plain.dtype(&spec.name), "{what}");
            assert_eq!(
                collected(&model, &spec.name),
                plain.load(&spec.name).unwrap().data(),
                "{what}"
            );
        }
    }
}
