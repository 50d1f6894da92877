//! Loads a Hugging Face model folder and generates tokens: the same ones on every device.
//!
//! `cargo run --release --example load_and_generate`
//!
//! The model is made here, with random weights, in a temporary folder. For a real model,
//! `concord_text::TextTokenizer` turns text into ids and back.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::sample::Sampling;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Precisions, Stage, StageOptions};
use concord_models::export::{ExportDtype, write_tensors};
use concord_models::generate::Generator;
use concord_models::weights::ModelFolder;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 100, "max_position_embeddings": 64, "rms_norm_eps": 1e-5
}"#;

/// Writes `config.json` and `model.safetensors`.
fn make_model(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join("config.json"), CONFIG)?;
    let mut tensors = BTreeMap::new();
    for (index, spec) in (0..).zip(DecoderConfig::from_json(CONFIG)?.tensors()) {
        let stream = Philox::new(1, index);
        let count = spec.shape.iter().product::<usize>() as u64;
        let numbers: Vec<f32> = (0..count).map(|at| stream.unit(at) - 0.5).collect();
        tensors.insert(spec.name, Tensor::new(&spec.shape, numbers)?);
    }
    let weights = folder.join("model.safetensors");
    write_tensors(&weights, &tensors, |_| ExportDtype::F32)?;
    Ok(())
}

/// The whole model of a folder on a device.
fn load(folder: &Path, device: Device) -> Result<Stage, Box<dyn Error>> {
    let model = ModelFolder::open(folder)?;
    let config = Arc::new(model.config().clone());
    let options = StageOptions {
        device,
        layers: (0..config.layers as u32).into(),
        positions: config.max_positions,
        config,
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
    };
    Ok(Stage::load(options, &model, &BTreeMap::new())?)
}

/// `count` tokens after `prompt`.
fn generate(stage: &Stage, prompt: &[u32], count: usize) -> Result<Vec<u32>, Box<dyn Error>> {
    let sampling = Sampling {
        temperature: 0.8,
        top_k: 0,
        top_p: 0.95,
        seed: 7,
    };
    let mut generator = Generator::new(stage, sampling)?;
    let mut tokens = vec![generator.next(prompt)?];
    while tokens.len() < count {
        let last = tokens[tokens.len() - 1];
        tokens.push(generator.next(&[last])?);
    }
    Ok(tokens)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    make_model(folder.path())?;
    let prompt = [1, 5, 9];
    let tokens = generate(&load(folder.path(), Device::cpu(2))?, &prompt, 16)?;
    println!("{prompt:?} goes on with {tokens:?}");
    let again = generate(&load(folder.path(), Device::Reference)?, &prompt, 16)?;
    if again != tokens {
        return Err(format!("the reference generates others: {again:?}").into());
    }
    println!("the scalar reference generates the same");
    Ok(())
}
