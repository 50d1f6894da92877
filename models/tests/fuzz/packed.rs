//! Small models of which one matrix is packed, by every method.

use concord_models::config::DecoderConfig;
use serde_json::{Map, Value, json};

/// The shape of the matrix that is packed, of all but gpt-oss.
const ROWS: usize = 8;
const COLS: usize = 64;

/// A part of a packed matrix: the end of its name, its dtype, its shape and its bytes.
type Part = (&'static str, &'static str, Vec<usize>, Vec<u8>);

/// A model: what its method is called, `config.json`, and the file of its weights.
pub type PackedModel = (&'static str, Value, Vec<u8>);

/// A model of each method.
pub fn packed_models() -> Vec<PackedModel> {
    let mut all: Vec<PackedModel> = methods()
        .into_iter()
        .map(|(name, quantization, parts)| {
            let mut config = llama();
            config["quantization_config"] = quantization;
            let module = "model.layers.0.mlp.down_proj";
            let file = file_of(&config, &[(module, parts)]);
            (name, config, file)
        })
        .collect();
    all.push(mxfp4());
    all
}

fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": ROWS,
        "intermediate_size": COLS, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 32,
        "tie_word_embeddings": true
    })
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Bytes that are not all alike.
fn codes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 37 % 251) as u8 & 0x77).collect()
}

/// 0.5 as f16.
const HALF: [u8; 2] = [0, 0x38];

fn methods() -> Vec<(&'static str, Value, Vec<Part>)> {
    let [groups, words] = [COLS / 32, COLS / 8];
    let scales = || HALF.repeat(groups * ROWS);
    let group_of = (0..COLS as u32).flat_map(|i| (i / 32).to_le_bytes());
    let mut all = vec![
        (
            "GPTQ",
            json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false}),
            vec![
                (
                    ".qweight",
                    "I32",
                    vec![words, ROWS],
                    codes(4 * words * ROWS),
                ),
                (".qzeros", "I32", vec![groups, 1], codes(4 * groups)),
                (".scales", "F16", vec![groups, ROWS], scales()),
                (".g_idx", "I32", vec![COLS], group_of.collect()),
            ],
        ),
        (
            "AWQ",
            json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}),
            vec![
                (".qweight", "I32", vec![COLS, 1], codes(4 * COLS)),
                (".qzeros", "I32", vec![groups, 1], codes(4 * groups)),
                (".scales", "F16", vec![groups, ROWS], scales()),
            ],
        ),
        (
            "FP8",
            json!({"quant_method": "fp8", "weight_block_size": [4, COLS],
                   "activation_scheme": "dynamic"}),
            vec![
                (".weight", "F8_E4M3", vec![ROWS, COLS], codes(ROWS * COLS)),
                (".weight_scale_inv", "F32", vec![2, 1], f32s(&[0.25, 0.5])),
            ],
        ),
    ];
    all.extend(compressed());
    all.extend(bitsandbytes());
    all
}

fn compressed() -> [(&'static str, Value, Vec<Part>); 2] {
    let [groups, words] = [COLS / 32, COLS / 8];
    let weights = |bits: u32, kind: &str, strategy: &str, group: Value| {
        json!({"g": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": kind,
               "strategy": strategy, "group_size": group, "symmetric": true}}})
    };
    let shape = [ROWS as u64, COLS as u64].map(u64::to_le_bytes).concat();
    [
        (
            "compressed-tensors, packed",
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                   "config_groups": weights(4, "int", "group", json!(32))}),
            vec![
                (
                    ".weight_packed",
                    "I32",
                    vec![ROWS, words],
                    codes(4 * words * ROWS),
                ),
                (".weight_shape", "I64", vec![2], shape),
                (
                    ".weight_scale",
                    "F16",
                    vec![ROWS, groups],
                    HALF.repeat(groups * ROWS),
                ),
            ],
        ),
        (
            "compressed-tensors, int8",
            json!({"quant_method": "compressed-tensors", "format": "int-quantized",
                   "config_groups": weights(8, "int", "channel", Value::Null)}),
            vec![
                (".weight", "I8", vec![ROWS, COLS], codes(ROWS * COLS)),
                (".weight_scale", "F32", vec![ROWS, 1], f32s(&[0.25; ROWS])),
            ],
        ),
    ]
}

fn bitsandbytes() -> [(&'static str, Value, Vec<Part>); 2] {
    let state = json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16",
                       "shape": [ROWS, COLS], "nested_blocksize": 256,
                       "nested_dtype": "float32", "nested_offset": 0.5});
    let state = state.to_string().into_bytes();
    let levels = |count: usize| {
        let levels = (0..count).map(|i| (2 * i) as f32 / (count - 1) as f32 - 1.0);
        f32s(&levels.collect::<Vec<f32>>())
    };
    [
        (
            "bitsandbytes, NF4",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            vec![
                (
                    ".weight.quant_state.bitsandbytes__nf4",
                    "U8",
                    vec![state.len()],
                    state,
                ),
                (".weight.absmax", "U8", vec![ROWS], codes(ROWS)),
                (".weight.nested_absmax", "F32", vec![1], f32s(&[0.5])),
                (".weight.quant_map", "F32", vec![16], levels(16)),
                (
                    ".weight",
                    "U8",
                    vec![ROWS * COLS / 2, 1],
                    codes(ROWS * COLS / 2),
                ),
                (".weight.nested_quant_map", "F32", vec![256], levels(256)),
            ],
        ),
        (
            "bitsandbytes, int8",
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            vec![
                (".weight", "I8", vec![ROWS, COLS], codes(ROWS * COLS)),
                (".SCB", "F32", vec![ROWS], f32s(&[1.0; ROWS])),
                (".weight_format", "U8", vec![], vec![0]),
            ],
        ),
    ]
}

/// A gpt-oss of one layer and two experts.
fn mxfp4() -> PackedModel {
    let config = json!({
        "model_type": "gpt_oss", "hidden_act": "silu", "hidden_size": 32,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 8, "num_local_experts": 2,
        "num_experts_per_tok": 1, "max_position_embeddings": 32, "sliding_window": 8,
        "layer_types": ["full_attention"], "tie_word_embeddings": false,
        "quantization_config": {"quant_method": "mxfp4"}
    });
    let experts = |rows: usize| -> Vec<Part> {
        vec![
            ("_blocks", "U8", vec![2, rows, 1, 16], codes(2 * rows * 16)),
            ("_scales", "U8", vec![2, rows, 1], vec![120; 2 * rows]),
        ]
    };
    let module = |name: &str| format!("model.layers.0.mlp.experts.{name}");
    let [down, up] = [module("down_proj"), module("gate_up_proj")];
    let file = file_of(&config, &[(&down, experts(32)), (&up, experts(64))]);
    ("MXFP4", config, file)
}

/// The weights of a model: packed modules first, and all else as BF16.
fn file_of(config: &Value, packed: &[(&str, Vec<Part>)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut put = |name: String, dtype: &str, shape: &[usize], bytes: &[u8]| {
        let start = data.len();
        data.extend(bytes);
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    };
    for (module, parts) in packed {
        for (end, dtype, shape, bytes) in parts {
            put(format!("{module}{end}"), dtype, shape, bytes);
        }
    }
    let plain = DecoderConfig::from_json(&config.to_string()).unwrap();
    for spec in plain.tensors() {
        let module = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
        if !packed.iter().any(|(packed, _)| *packed == module) {
            // 0.5 each.
            let count = spec.shape.iter().product::<usize>();
            put(spec.name, "BF16", &spec.shape, &[0, 0x3f].repeat(count));
        }
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}
