//! A matrix that is read some rows at a time equals the one that is read as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use concord_kernels::coded::Precision;
use concord_kernels::{Device, Tensor};
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Precisions, Stage, StageInput, StageOptions, TensorSource};
use concord_models::weights::{TakeRows, TensorFile, runs_of_rows};

use crate::fixtures::raw_safetensors;

/// More rows than are read at a time, and not a multiple of that number.
const ROWS: usize = 3_100;
const COLS: usize = 700;

/// A file with the matrix `x`, of elements of so many bytes, and the vector `v`.
fn write(path: &Path, dtype: &str, elements: &[u8]) {
    let vector = elements.len() / ROWS;
    let (end, shape) = (elements.len(), [ROWS, COLS]);
    let header = format!(
        r#"{{"x":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{end}]}},
            "v":{{"dtype":"{dtype}","shape":[{COLS}],"data_offsets":[{end},{}]}}}}"#,
        end + vector
    );
    let data = [elements, &elements[..vector]].concat();
    fs::write(path, raw_safetensors(&header, &data)).unwrap();
}

fn in_slices(file: &TensorFile, name: &str) -> Result<(Vec<f32>, usize), ModelError> {
    let (mut all, mut slices) = (Vec::new(), 0);
    file.load_rows(name, &mut |_, rows| {
        all.extend_from_slice(rows.data());
        slices += 1;
        Ok(())
    })?;
    Ok((all, slices))
}

#[test]
fn rows_put_together_are_the_matrix_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let small = |i: usize| (i % 509) as u16;
    let half: Vec<u8> = (0..ROWS * COLS)
        .flat_map(|i| (0x3C00 ^ small(i)).to_le_bytes())
        .collect();
    let single: Vec<u8> = (0..ROWS * COLS)
        .flat_map(|i| (f32::from(small(i)) - 250.5).to_le_bytes())
        .collect();
    for (dtype, elements) in [("F32", &single), ("F16", &half), ("BF16", &half)] {
        let path = folder.path().join(dtype);
        write(&path, dtype, elements);
        let file = TensorFile::open(&path).unwrap();
        let (rows, slices) = in_slices(&file, "x").unwrap();
        assert_eq!(slices, 3, "{dtype}");
        assert!(rows == file.load("x").unwrap().data(), "{dtype}");
        let (vector, slices) = in_slices(&file, "v").unwrap();
        assert_eq!(slices, 1);
        assert_eq!(vector, file.load("v").unwrap().data());
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[file.place("x").unwrap()], &elements[..], "{dtype}");
    }
}

#[test]
fn what_is_not_finite_is_named_as_by_a_whole_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for bad in [0, 5, ROWS * COLS / 2, ROWS * COLS - 1] {
        let mut elements = vec![0; ROWS * COLS * 4];
        elements[4 * bad..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        write(&path, "F32", &elements);
        let file = TensorFile::open(&path).unwrap();
        let error = in_slices(&file, "x").unwrap_err().to_string();
        assert_eq!(error, file.load("x").unwrap_err().to_string());
        assert!(error.contains(&format!("element {bad} ")), "{error}");
    }
}

/// A model whose matrices are given in slices, or as wholes.
struct Made {
    config: DecoderConfig,
    in_slices: bool,
}

impl TensorSource for Made {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let tensors = self.config.tensors().into_iter();
        let spec = { tensors }.find(|spec| spec.name == name).unwrap();
        let seed = name.bytes().map(usize::from).sum::<usize>();
        let element = |i: usize| ((i * 7_919 + seed) % 1_013) as f32 / 8_192.0 - 0.06;
        let count = spec.shape.iter().product();
        Ok(Tensor::new(&spec.shape, (0..count).map(element).collect::<Vec<f32>>()).unwrap())
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let whole = self.tensor(name)?;
        let (rows, cols) = whole.rows_cols();
        if !self.in_slices {
            return take(rows, whole);
        }
        let mut runs = runs_of_rows(rows, cols);
        runs.try_for_each(|run| take(rows, whole.rows(run.start, run.len())))
    }
}

/// The logits of some tokens.
fn logits(device: &Device, in_slices: bool, tied: bool) -> Vec<f32> {
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512,
            "intermediate_size": 2500, "num_hidden_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 2600, "max_position_embeddings": 16,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": {tied}}}"#
    );
    let config = DecoderConfig::from_json(&config).unwrap();
    let options = StageOptions {
        device: device.clone(),
        config: config.clone().into(),
        layers: (0..1).into(),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
        positions: 8,
    };
    let source = Made { config, in_slices };
    let stage = Stage::load(options, &source, &BTreeMap::new()).unwrap();
    let mut cache = stage.cache().unwrap();
    let tokens = [1, 2_599, 77];
    let hidden = stage
        .extend(&mut cache, &tokens, StageInput::Tokens)
        .unwrap();
    stage.logits(&hidden).unwrap().into_values().unwrap()
}

#[test]
fn a_stage_has_the_same_bits_whether_it_was_coded_in_slices_or_not() {
    for tied in [false, true] {
        let whole = logits(&Device::Reference, false, tied);
        assert!(whole.iter().any(|logit| *logit != whole[0]), "no test");
        for device in [Device::Reference, Device::cpu(1), Device::cpu(2)] {
            let sliced = logits(&device, true, tied);
            assert!(sliced == whole, "tied {tied} on {}", device.name());
        }
    }
}
