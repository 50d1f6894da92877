//! Checkpoints that are quantised as they are read: what bitsandbytes and ggml make of the same
//! numbers, and one model however its quantised numbers are stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_kernels::packed::QuantFormat;
use concord_kernels::{Device, Tensor};
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::weights::{Dtype, ModelFolder, TensorFile};
use serde_json::{Value, json};

use crate::kept::{gradients, packed_matrices, stage};
use crate::vectors::{assert_bits, bits, packed};

fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    bits(file, name).into_iter().map(f32::from_bits).collect()
}

/// The numbers that blocks of `values` stand for.
fn there_and_back(format: QuantFormat, values: &[f32]) -> Vec<f32> {
    let blocks = format.blocks();
    let mut bytes = vec![0; blocks.row_bytes(values.len()).unwrap()];
    format.quantize(values, &mut bytes).unwrap();
    let mut near = vec![0.0; values.len()];
    blocks.decode(&bytes, &mut near);
    near
}

#[test]
fn nf4_is_what_bitsandbytes_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packed/nf4.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let values = floats(&file, "values");
    let scales = floats(&file, "absmax");
    let mut bytes = vec![0; values.len() / 64 * 36];
    QuantFormat::Nf4.quantize(&values, &mut bytes).unwrap();
    let codes = file.bytes("codes").unwrap().chunks(32);
    for (i, (block, codes)) in bytes.chunks(36).zip(codes).enumerate() {
        assert_eq!(block[..4], scales[i].to_le_bytes(), "scale {i}");
        assert_eq!(&block[4..], codes, "codes of block {i}");
    }
    assert_eq!(scales.len(), 80);
}

#[test]
fn what_has_been_quantised_stays_as_it_is() {
    /// The first rows are quantised numbers, the others are made to have odd codes.
    const ROWS: usize = 8;
    for (format, name) in [
        (QuantFormat::Nf4, "bnb-nf4.safetensors"),
        (QuantFormat::Q8_0, "gguf-q8_0.safetensors"),
    ] {
        let Some(path) = packed(name) else { return };
        let file = TensorFile::open(&path).unwrap();
        let expected = &bits(&file, "decoded")[..ROWS * 512];
        let values: Vec<f32> = expected.iter().map(|bits| f32::from_bits(*bits)).collect();
        let near = there_and_back(format, &values);
        for (i, (near, value)) in near.iter().zip(&values).enumerate() {
            assert_eq!(near, value, "{name}, number {i}");
        }
    }
}

#[test]
fn errors_are_those_of_the_steps() {
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..4_096).map(|_| random() * random() * random()).collect();
    for format in QuantFormat::ALL {
        let near = there_and_back(format, &values);
        for (values, near) in values.chunks(32).zip(near.chunks(32)) {
            let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            for (value, near) in values.iter().zip(near) {
                let error = (value - near).abs();
                let most = match format {
                    // Half of the widest gap between levels; no number is beyond 1.
                    QuantFormat::Nf4 => 0.16,
                    // Half a step of 15 over twice the largest, and the rounding of scales.
                    QuantFormat::Q4K => largest * (1.0 / 15.0) + 1.0 / 63.0,
                    // Half a step, and the rounding of the scale to f16.
                    QuantFormat::Q8_0 => largest * (0.57 / 127.0),
                };
                assert!(error <= most, "{format:?}: {near} for {value}");
            }
        }
    }
}

/// A Llama whose rows are whole blocks of every format, with BF16 numbers.
fn write_model(folder: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let config = concord_models::config::DecoderConfig::from_folder(folder).unwrap();
    let mut seed = 7_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 27) as f32 - 0.0625
    };
    let tensors: BTreeMap<String, Tensor> = config
        .tensors()
        .into_iter()
        .map(|spec| {
            let values: Vec<f32> = (0..spec.shape.iter().product()).map(|_| random()).collect();
            (spec.name, Tensor::new(&spec.shape, values).unwrap())
        })
        .collect();
    let path = folder.join("model.safetensors");
    write_tensors(&path, &tensors, |_| ExportDtype::BF16).unwrap();
}

#[test]
fn a_quantised_model_is_the_model_with_the_quantised_numbers() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let plain = gradients(&stage(
        &ModelFolder::open(folder.path()).unwrap(),
        &Device::cpu(2),
        false,
    ));
    for format in QuantFormat::ALL {
        let quantized = ModelFolder::open(folder.path())
            .unwrap()
            .quantized_to(format)
            .unwrap();
        // The same numbers, as a checkpoint in f32.
        let saved = tempfile::tempdir().unwrap();
        fs::copy(
            folder.path().join("config.json"),
            saved.path().join("config.json"),
        )
        .unwrap();
        let mut tensors = BTreeMap::new();
        for spec in quantized.config().tensors() {
            let whole = quantized.load(&spec.name).unwrap();
            let mut by_rows = Vec::new();
            let take = &mut |_, rows: Tensor| {
                by_rows.extend_from_slice(rows.data());
                Ok(())
            };
            quantized.load_rows(&spec.name, take).unwrap();
            let by_rows: Vec<u32> = by_rows.iter().map(|v| v.to_bits()).collect();
            assert_bits(whole.data(), &by_rows, &spec.name);
            let is_matrix = spec.name.contains("_proj");
            let expected = if is_matrix { Dtype::F32 } else { Dtype::BF16 };
            assert_eq!(quantized.dtype(&spec.name), Some(expected), "{}", spec.name);
            tensors.insert(spec.name, whole);
        }
        let path = saved.path().join("model.safetensors");
        write_tensors(&path, &tensors, |_| ExportDtype::F32).unwrap();
        let saved = ModelFolder::open(saved.path()).unwrap();
        let kept = stage(&quantized, &Device::cpu(2), false);
        // Seven matrices, and embedding and head in BF16.
        assert_eq!(packed_matrices(&kept), 9, "{format:?}");
        let found = gradients(&kept);
        assert_eq!(
            found,
            gradients(&stage(&saved, &Device::Reference, false)),
            "{format:?}"
        );
        assert_ne!(found, plain, "{format:?}");
    }
}

#[test]
fn what_cannot_be_quantised_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    let path = folder.path().join("config.json");
    let refusal = |format| {
        let folder = ModelFolder::open(folder.path()).unwrap();
        folder.quantized_to(format).unwrap_err().to_string()
    };
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["hidden_size"] = json!(96);
    config["head_dim"] = json!(64);
    fs::write(&path, config.to_string()).unwrap();
    let config = concord_models::config::DecoderConfig::from_folder(folder.path()).unwrap();
    let tensors: BTreeMap<String, Tensor> = config
        .tensors()
        .into_iter()
        .map(|spec| (spec.name, Tensor::zeros(&spec.shape)))
        .collect();
    let weights = folder.path().join("model.safetensors");
    write_tensors(&weights, &tensors, |_| ExportDtype::F32).unwrap();
    for (format, share) in [
        (QuantFormat::Nf4, "64 of them"),
        (QuantFormat::Q4K, "256 of them"),
    ] {
        let refusal = refusal(format);
        for part in [
            "model.safetensors",
            "q_proj.weight",
            "rows of 96 numbers",
            share,
        ] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }
    // A number without a scale in f16 is found when it is read.
    let mut tensors = tensors;
    let name = "model.layers.0.self_attn.q_proj.weight";
    let mut values = vec![0.0; 256 * 96];
    values[100] = 1e30;
    tensors.insert(name.to_string(), Tensor::new(&[256, 96], values).unwrap());
    write_tensors(&weights, &tensors, |_| ExportDtype::F32).unwrap();
    let model = ModelFolder::open(folder.path()).unwrap();
    let model = model.quantized_to(QuantFormat::Q8_0).unwrap();
    let error = model.load(name).unwrap_err().to_string();
    for part in ["q_proj.weight", "Q8_0", "element 100 is 1"] {
        assert!(error.contains(part), "{error}");
    }
}
