//! gpt-oss as it is published: its experts are blocks of MXFP4, all else is plain.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_kernels::packed::QuantFormat;
use concord_models::config::DecoderConfig;
use concord_models::weights::{Dtype, ModelFolder};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::encoders::f32s;
use crate::vectors::assert_bits;

/// The numbers of the codes of four bits.
const LEVELS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Type, shape and bytes of a tensor.
type Part = (Dtype, Vec<usize>, Vec<u8>);

/// A code that depends on the place of its number, and not by a short period.
fn code(expert: usize, row: usize, col: usize) -> u8 {
    let mixed = (expert * 7_919 + row * 131 + col * 17 + 1).wrapping_mul(0x9e37_79b9);
    (mixed >> 13) as u8 & 15
}

/// Exponents of the blocks of 32, of another size each.
fn exponent(expert: usize, out: usize, block: usize) -> u8 {
    (118 + (expert + 3 * out + 5 * block) % 7) as u8
}

fn number(expert: usize, i: usize, out: usize) -> f32 {
    let code = code(expert, i, out);
    let level = LEVELS[usize::from(code & 7)];
    let signed = if code < 8 { level } else { -level };
    signed * f32::from_bits(u32::from(exponent(expert, out, i / 32)) << 23)
}

/// Writes the model; its experts as the numbers that they are, or in blocks.
fn write(folder: &Path, packed: bool) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/gpt_oss/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    config["intermediate_size"] = json!(32);
    if packed {
        config["quantization_config"] = json!({
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"],
        });
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut tensors: BTreeMap<String, Part> = BTreeMap::new();
    for spec in DecoderConfig::from_folder(folder).unwrap().tensors() {
        let count = spec.shape.iter().product::<usize>();
        let (name, shape) = (spec.name, spec.shape);
        match *shape.as_slice() {
            [experts, ins, outs] if packed => {
                let (mut blocks, mut scales) = (Vec::new(), Vec::new());
                for (e, o) in (0..experts).flat_map(|e| (0..outs).map(move |o| (e, o))) {
                    blocks.extend(
                        (0..ins / 2).map(|i| code(e, 2 * i, o) | code(e, 2 * i + 1, o) << 4),
                    );
                    scales.extend((0..ins / 32).map(|block| exponent(e, o, block)));
                }
                let shape = vec![experts, outs, ins / 32];
                let wide = [&shape[..], &[16]].concat();
                tensors.insert(format!("{name}_blocks"), (Dtype::U8, wide, blocks));
                tensors.insert(format!("{name}_scales"), (Dtype::U8, shape, scales));
            }
            [experts, ins, outs] => {
                let rows = (0..experts).flat_map(|e| (0..ins).map(move |i| (e, i)));
                let numbers = rows.flat_map(|(e, i)| (0..outs).map(move |o| number(e, i, o)));
                tensors.insert(name, (Dtype::F32, shape, f32s(numbers)));
            }
            _ => {
                let numbers = (0..count).map(|i| (i % 13) as f32 / 16.0 - 0.375);
                tensors.insert(name, (Dtype::F32, shape, f32s(numbers)));
            }
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

#[test]
fn experts_in_blocks_are_the_experts_as_numbers() {
    let [plain, packed] = [false, true].map(|is_packed| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), is_packed);
        let model = ModelFolder::open(folder.path()).unwrap();
        (folder, model)
    });
    let mut blocks = 0;
    for spec in plain.1.config().tensors() {
        let name = &spec.name;
        let expected = plain.1.load(name).unwrap();
        let bits: Vec<u32> = expected.data().iter().map(|v| v.to_bits()).collect();
        let found = packed.1.load(name).unwrap();
        assert_eq!(found.shape(), spec.shape, "{name}");
        assert_bits(found.data(), &bits, name);
        let mut by_rows = Vec::new();
        let take = &mut |_, rows: concord_kernels::Tensor| {
            by_rows.extend_from_slice(rows.data());
            Ok(())
        };
        packed.1.load_rows(name, take).unwrap();
        assert_bits(&by_rows, &bits, name);
        blocks += usize::from(packed.1.is_packed(name));
    }
    assert_eq!(blocks, 4, "two tensors of experts in each of two layers");
    assert_eq!(packed.1.config().canonical(), plain.1.config().canonical());
    // Half of the model would be quantised without a word.
    let refused = plain.1.quantized_to(QuantFormat::Nf4).unwrap_err();
    assert!(refused.to_string().contains("gate_up_proj"), "{refused}");
}
