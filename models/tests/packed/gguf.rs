//! GGUF files as models: logits agree with those of transformers on the decoded weights, and bits
//! do not depend on how the numbers are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_models::decoder::{Batch, Precisions, Stage, StageInput, StageOptions};
use concord_models::weights::{ModelFolder, TensorFile};

use crate::gguf_writer::GgufWriter;
use crate::vectors::packed;

const FILES: [&str; 5] = [
    "tinystories-260k-F16",
    "tinystories-260k-Q8_0",
    "llama-h256-F16",
    "llama-h256-Q8_0",
    "llama-h256-Q4_K",
];

/// The logits of every position, on a device.
pub fn logits(model: &ModelFolder, device: Device, tokens: &[u32]) -> Vec<f32> {
    let config = Arc::new(model.config().clone());
    let options = StageOptions {
        device,
        layers: (0..config.layers as u32).into(),
        config,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
        positions: 64,
    };
    let stage = Stage::load(options, model, &BTreeMap::new()).unwrap();
    let batch = Batch::whole(tokens.len(), tokens.to_vec());
    let (hidden, _) = stage.forward(&batch, StageInput::Tokens).unwrap();
    stage.logits(&hidden).unwrap().data().to_vec()
}

#[test]
fn logits_are_those_of_transformers_on_the_decoded_weights() {
    for name in FILES {
        let Some(path) = packed(&format!("{name}.gguf")) else {
            return;
        };
        let model = ModelFolder::open(&path).unwrap();
        let reference = path.with_file_name(format!("{name}.logits.safetensors"));
        let reference = TensorFile::open(&reference).unwrap();
        let ids = reference.load_i64("input_ids").unwrap();
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        let expected = reference.load("logits_decoded_f32").unwrap();
        let found = logits(&model, Device::cpu(2), &ids);
        assert_eq!(found.len(), expected.data().len());
        let pairs = || found.iter().zip(expected.data());
        let largest = expected.data().iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let off = pairs().fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= 1e-3 * largest, "{name}: {off} of {largest}");
    }
}

/// The F16 file was made from the folder: it has the same numbers, in another order of rows.
#[test]
fn a_gguf_file_has_the_numbers_of_the_folder_it_was_made_of() {
    for (file, folder) in [
        ("tinystories-260k-F16.gguf", "../../models/tinystories-260k"),
        ("llama-h256-F16.gguf", "llama-h256"),
    ] {
        let (Some(file), Some(folder)) = (packed(file), packed(folder)) else {
            return;
        };
        let (file, folder) = (
            ModelFolder::open(&file).unwrap(),
            ModelFolder::open(&folder).unwrap(),
        );
        let (found, expected) = (file.config(), folder.config());
        assert_eq!(found.rope, expected.rope);
        assert_eq!((found.bos, &found.eos), (expected.bos, &expected.eos));
        assert_eq!(found.tie_embeddings, expected.tie_embeddings);
        for spec in expected.tensors() {
            let (found, expected) = (file.load(&spec.name), folder.load(&spec.name));
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert_eq!(found.shape(), expected.shape());
            let off = found.data().iter().zip(expected.data());
            // tinystories is F32 there.
            let off = off.map(|(a, b)| (a - b).abs() / b.abs().max(1e-4));
            let off = off.fold(0.0_f32, f32::max);
            assert!(off <= 1.0 / 1_024.0, "{}: {off}", spec.name);
        }
    }
}

/// What is done for each tensor does not grow with their number: else this takes minutes.
#[test]
fn a_file_of_many_tensors_opens_at_once() {
    const LAYERS: u32 = 1_024;
    let mut file = GgufWriter::default();
    file.string("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 32),
        ("embedding_length", 2),
        ("block_count", LAYERS),
        ("feed_forward_length", 2),
        ("attention.head_count", 1),
    ] {
        file.u32(&format!("llama.{key}"), value);
    }
    let ones = |count: usize| 1.0_f32.to_le_bytes().repeat(count);
    file.tensor("token_embd.weight", &[3, 2], 0, ones(6));
    file.tensor("output_norm.weight", &[2], 0, ones(2));
    for layer in 0..LAYERS {
        for part in ["attn_norm", "ffn_norm"] {
            file.tensor(&format!("blk.{layer}.{part}.weight"), &[2], 0, ones(2));
        }
        let matrices = ["attn_q", "attn_k", "attn_v", "attn_output"];
        for part in matrices.iter().chain(&["ffn_gate", "ffn_up", "ffn_down"]) {
            file.tensor(&format!("blk.{layer}.{part}.weight"), &[2, 2], 0, ones(4));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.whole()).unwrap();
    let start = std::time::Instant::now();
    let model = ModelFolder::open(&path).unwrap();
    for spec in model.config().tensors() {
        assert!(!model.is_packed(&spec.name));
    }
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
