//! A matrix of levels, packed by every method.

use serde_json::{Value, json};

use crate::encoders::{STEP, STEP_F16, f32s};

pub fn le(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

pub type Stored = Vec<(&'static str, &'static str, Vec<usize>, Vec<u8>)>;

/// How a matrix of levels is stored: ends of names, types, shapes and bytes.
pub type Store = fn([usize; 2], &[i8]) -> Stored;

pub fn plain_f32(shape: [usize; 2], levels: &[i8]) -> Stored {
    let bytes = f32s(levels.iter().map(|level| f32::from(*level) * STEP));
    vec![(".weight", "F32", shape.to_vec(), bytes)]
}

pub fn plain_bf16(shape: [usize; 2], levels: &[i8]) -> Stored {
    let values = levels.iter().map(|level| f32::from(*level) * STEP);
    let bytes = values.flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes());
    vec![(".weight", "BF16", shape.to_vec(), bytes.collect())]
}

/// Words along the inputs, zeros one less.
pub fn gptq([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let mut words = vec![0_u32; cols / 8 * rows];
    for (i, level) in levels.iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        words[col / 8 * rows + row] |= ((level + 8) as u32) << (4 * (col % 8));
    }
    let groups = cols / 128;
    let zeros = vec![0x7777_7777_u32; groups * rows / 8];
    vec![
        (".qweight", "I32", vec![cols / 8, rows], le(words)),
        (".qzeros", "I32", vec![groups, rows / 8], le(zeros)),
        (
            ".scales",
            "F16",
            vec![groups, rows],
            STEP_F16.repeat(groups * rows),
        ),
    ]
}

/// Words along the outputs, interleaved.
fn awq([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let mut words = vec![0_u32; cols * rows / 8];
    for (i, level) in levels.iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        let place = [0, 4, 1, 5, 2, 6, 3, 7][row % 8];
        words[col * (rows / 8) + row / 8] |= ((level + 5) as u32) << (4 * place);
    }
    let groups = cols / 128;
    let zeros = vec![0x5555_5555_u32; groups * rows / 8];
    vec![
        (".qweight", "I32", vec![cols, rows / 8], le(words)),
        (".qzeros", "I32", vec![groups, rows / 8], le(zeros)),
        (
            ".scales",
            "F16",
            vec![groups, rows],
            STEP_F16.repeat(groups * rows),
        ),
    ]
}

fn compressed([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let words = levels.chunks(8).map(|some| {
        let fields = some.iter().enumerate();
        fields.fold(0, |word, (i, level)| word | ((level + 8) as u32) << (4 * i))
    });
    let shape = [rows as u64, cols as u64].map(u64::to_le_bytes).concat();
    let scales = STEP_F16.repeat(rows * cols / 64);
    vec![
        (".weight_packed", "I32", vec![rows, cols / 8], le(words)),
        (".weight_shape", "I64", vec![2], shape),
        (".weight_scale", "F16", vec![rows, cols / 64], scales),
    ]
}

fn e4m3(level: i8) -> u8 {
    // 0, 1, 2 and -1: exponent 7 is that of 1.
    [0xb8, 0, 0x38, 0x40][(level + 1) as usize]
}

fn fp8([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let blocks = vec![rows.div_ceil(128), cols.div_ceil(128)];
    let scales = vec![STEP; blocks[0] * blocks[1]];
    let codes = levels.iter().map(|level| e4m3(*level)).collect();
    vec![
        (".weight", "F8_E4M3", vec![rows, cols], codes),
        (".weight_scale_inv", "F32", blocks, f32s(scales)),
    ]
}

fn fp8_ue8m0([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let mut parts = fp8([rows, cols], levels);
    let count = parts[1].2.iter().product();
    parts[1].1 = "F8_E8M0";
    // 2^-5.
    parts[1].3 = vec![122; count];
    parts
}

/// Levels of a table of the file's own.
fn bitsandbytes([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let codes = levels
        .chunks(2)
        .map(|pair| ((pair[0] + 1) as u8) << 4 | (pair[1] + 1) as u8);
    let codes: Vec<u8> = codes.collect();
    let mut table = [0.0; 16];
    table[..4].copy_from_slice(&[-1.0, 0.0, 1.0, 2.0]);
    let state = json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16",
                       "shape": [rows, cols]});
    let state = state.to_string().into_bytes();
    let blocks = rows * cols / 64;
    vec![
        (".weight", "U8", vec![codes.len(), 1], codes),
        (
            ".weight.absmax",
            "F32",
            vec![blocks],
            f32s(vec![STEP; blocks]),
        ),
        (".weight.quant_map", "F32", vec![16], f32s(table)),
        (
            ".weight.quant_state.bitsandbytes__nf4",
            "U8",
            vec![state.len()],
            state,
        ),
    ]
}

/// The same with groups of inputs that do not follow each other; all groups have the same scale.
fn gptq_by_activations([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let mut parts = gptq([rows, cols], levels);
    let groups = (0..cols as u32).map(|input| input % (cols as u32 / 128));
    parts.push((".g_idx", "I32", vec![cols], le(groups)));
    parts
}

fn int8([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let codes = levels.iter().map(|level| *level as u8).collect();
    let scales = f32s(vec![STEP; rows]);
    vec![
        (".weight", "I8", vec![rows, cols], codes),
        (".weight_scale", "F32", vec![rows, 1], scales),
    ]
}

/// The scale is so that 1 / 127 of it is the step.
fn llm_int8([rows, cols]: [usize; 2], levels: &[i8]) -> Stored {
    let codes = levels.iter().map(|level| *level as u8).collect();
    vec![
        (".weight", "I8", vec![rows, cols], codes),
        (".SCB", "F32", vec![rows], f32s(vec![127.0 * STEP; rows])),
    ]
}

/// The methods of safetensors that can hold the values, as `quantization_config` and parts.
pub fn methods() -> Vec<(&'static str, Value, Store)> {
    let weights = json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64,
                         "symmetric": true});
    let groups = json!({"g": {"targets": ["Linear"], "weights": weights}});
    let fp8_config = json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3",
                            "activation_scheme": "dynamic"});
    vec![
        ("BF16", Value::Null, plain_bf16),
        (
            "GPTQ",
            json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true,
                   "desc_act": false}),
            gptq,
        ),
        (
            "AWQ",
            json!({"quant_method": "awq", "bits": 4, "group_size": 128}),
            awq,
        ),
        (
            "compressed-tensors",
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                   "config_groups": groups}),
            compressed,
        ),
        ("FP8", fp8_config.clone(), fp8),
        ("FP8 with powers of two", fp8_config, fp8_ue8m0),
        (
            "bitsandbytes",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            bitsandbytes,
        ),
        (
            "GPTQ in the order of activations",
            json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true}),
            gptq_by_activations,
        ),
        (
            "compressed-tensors, int8",
            json!({"quant_method": "compressed-tensors", "format": "int-quantized",
                   "config_groups": {"g": {"targets": ["Linear"], "weights": {
                       "num_bits": 8, "type": "int", "strategy": "channel", "symmetric": true}}}}),
            int8,
        ),
        (
            "bitsandbytes, int8",
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            llm_int8,
        ),
    ]
}
