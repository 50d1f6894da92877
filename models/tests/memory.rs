//! The measured memory of loading a stage, against the formula that plans use. This is a test
//! binary of its own, because memory of other tests would be measured, too.

use std::collections::BTreeMap;

use concord_kernels::coded::Precision;
use concord_kernels::{Device, Tensor};
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Precisions, Stage, StageOptions, TensorSource, WeightBytes};
use concord_models::weights::{TakeRows, runs_of_rows};

/// A model whose elements are made when they are asked for.
struct Made(DecoderConfig);

impl Made {
    fn shape(&self, name: &str) -> Vec<usize> {
        let spec = self.0.tensors().into_iter().find(|spec| spec.name == name);
        spec.expect("a tensor of the model").shape
    }
}

fn made(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let elements: Vec<f32> = (0..count).map(|i| (i % 251) as f32 - 125.0).collect();
    Tensor::new(shape, elements).unwrap()
}

impl TensorSource for Made {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(made(&self.shape(name)))
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let &[rows, cols] = self.shape(name).as_slice() else {
            panic!("{name} is no matrix");
        };
        runs_of_rows(rows, cols).try_for_each(|run| take(rows, made(&[run.len(), cols])))
    }
}

fn config() -> DecoderConfig {
    DecoderConfig::from_json(
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512,
            "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
    )
    .unwrap()
}

/// A line of this process's status, in bytes; nothing on other systems.
fn status(line: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|l| l.strip_prefix(line))?;
    let kilobytes: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1_024 * kilobytes)
}

fn load(config: &DecoderConfig) -> Stage {
    let options = StageOptions {
        device: Device::cpu(1),
        config: config.clone().into(),
        layers: (0..config.layers as u32).into(),
        precisions: Precisions {
            weights: Precision::I16,
            activations: Precision::I16,
            key_values: Precision::I16,
        },
        lora: None,
        trains_all: false,
        positions: 512,
    };
    Stage::load(options, &Made(config.clone()), &BTreeMap::new()).unwrap()
}

#[test]
fn a_stage_takes_what_is_planned_and_loading_takes_no_more() {
    let config = config();
    let bytes = WeightBytes::of(&config);
    let planned = bytes.stage(&config, (0..8).into(), 512);
    // The stages of a model add up to the whole, except for the rotary table that each has.
    let table = 4 * 512 * config.head_dim as u64;
    let cuts = bytes.stage(&config, (0..3).into(), 512) + bytes.stage(&config, (3..8).into(), 512);
    assert_eq!(cuts, planned + table);

    let Some(before) = status("VmRSS:") else {
        println!("skipped: this system does not tell what a process takes");
        return;
    };
    let stage = load(&config);
    let (held, most) = (status("VmRSS:"), status("VmHWM:"));
    let (Some(held), Some(most)) = (held, most) else {
        println!("skipped: this system does not tell the most that a process took");
        return;
    };
    drop(stage);
    let (held, most) = (held.saturating_sub(before), most.saturating_sub(before));
    let is_near = |found: u64| found.abs_diff(planned) * 10 <= planned;
    assert!(
        is_near(held),
        "{held} bytes are held, {planned} were planned"
    );
    assert!(
        is_near(most),
        "{most} bytes at the most, {planned} were planned"
    );
}
