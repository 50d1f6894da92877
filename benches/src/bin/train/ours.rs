//! The same step by Concord's kernels and decoder.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{
    Batch, Gradients, LoraSpec, Precisions, Stage, StageInput, StageOptions, TensorSource,
    Trainable,
};
use concord_models::train::{
    MomentForm, OptimizerSettings, StepRule, StepScalars, TensorRule, TrainState, gradient_norm,
    lora_init,
};

use concord_runtime::{moment_blob, tensor_blob};

use crate::ModelShape;

/// Random tensors of the shapes that the configuration names.
struct Random(BTreeMap<String, Vec<usize>>);

impl TensorSource for Random {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let shape = &self.0[name];
        let stream = Philox::new(1, name.len() as u64);
        let is_norm = shape.len() == 1;
        let value = |i| if is_norm { 1.0 } else { (stream.unit(i) - 0.5) * 0.07 };
        let len = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..len).map(value).collect();
        Ok(Tensor::new(shape, values)?)
    }
}

pub struct Trainer {
    stage: Stage,
    state: TrainState,
    batch: Batch,
    step: u32,
}

impl Trainer {
    pub fn new(shape: &ModelShape, threads: usize) -> Self {
        let config = format!(
            r#"{{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu",
            "hidden_size":{},"intermediate_size":{},"num_hidden_layers":{},
            "num_attention_heads":{},"num_key_value_heads":{},"vocab_size":{},
            "max_position_embeddings":{},"rms_norm_eps":1e-6,"rope_theta":10000.0,
            "tie_word_embeddings":false}}"#,
            shape.hidden,
            shape.intermediate,
            shape.layers,
            shape.heads,
            shape.kv_heads,
            shape.vocab,
            shape.sequence_len
        );
        let config = DecoderConfig::from_json(&config).expect("the configuration is right");
        let tensors = config.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
        let alpha = 2.0 * shape.rank as f32;
        let lora = LoraSpec::uniform(shape.rank as u32, alpha, config.projections());
        let trainable = Trainable::Lora(lora.clone());
        let values: BTreeMap<String, Tensor> = trainable
            .tensors(&config)
            .iter()
            .enumerate()
            .map(|(index, tensor)| (tensor.name.clone(), lora_init(tensor, index, 3)))
            .collect();
        let options = StageOptions {
            device: Device::cpu(threads),
            layers: (0..config.layers as u32).into(),
            config: Arc::new(config),
            precisions: Precisions {
                weights: Precision::I16,
                activations: Precision::I16,
                key_values: Precision::I16,
            },
            lora: Some(lora),
            trains_all: false,
            positions: shape.sequence_len,
        };
        let stage = Stage::load(options, &Random(tensors), &values).expect("all tensors are made");
        let stream = Philox::new(9, 9);
        let count = shape.sequences * shape.sequence_len;
        let token = |i: usize| stream.words(i as u64)[0] % shape.vocab as u32;
        let tokens: Vec<u32> = (0..count).map(token).collect();
        let batch = Batch::whole(shape.sequence_len, tokens);
        Self { stage, state: TrainState::fresh(values, MomentForm::F32), batch, step: 0 }
    }

    /// One microbatch forward and back, and an update.
    pub fn step(&mut self) {
        let device = self.stage.options().device.clone();
        let mut gradients = Gradients::default();
        let forward = self.stage.forward(&self.batch, StageInput::Tokens);
        let (hidden, tape) = forward.expect("finite");
        let loss = self.stage.loss(&self.batch, &hidden, &mut gradients).expect("finite");
        let back = self.stage.backward(&self.batch, &tape, loss.d_hidden, &mut gradients);
        back.expect("finite");
        let gradients = gradients.joined(&device).expect("the device works");
        let tensors: Vec<&Tensor> = gradients.values().map(|gradient| &**gradient).collect();
        let squared = device.sum_squares(&tensors).expect("the device works");
        let targets = self.batch.targets.iter().flatten().count() as u64;
        let scalars = StepScalars {
            step: self.step,
            targets,
            grad_norm: gradient_norm(&squared, targets),
            learning_rate: 1e-4,
        };
        let settings = OptimizerSettings {
            rule: StepRule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            weight_decay: 0.01,
            max_grad_norm: 1.0,
        };
        let updated = self
            .state
            .updated(&device, &gradients, &settings, &scalars, |_| TensorRule::USUAL);
        self.state = updated.expect("finite");
        self.stage.refresh(&self.state.values()).expect("the device works");
        self.step += 1;
    }

    /// Hashes what a worker commits to in a step; returns the bytes.
    pub fn commit(&self) -> usize {
        let mut bytes = 0;
        let mut hash = |tensor: &Tensor| {
            std::hint::black_box(tensor_blob::digest(tensor).expect("the device works"));
            bytes += 4 * tensor.len();
        };
        for held in self.state.0.values() {
            // A gradient has the size of its value: once for the microbatch, once for the sum.
            for tensor in [&held.value, &held.value, &held.value] {
                hash(tensor);
            }
        }
        let hidden = self.stage.options().config.hidden;
        let boundary = Tensor::zeros(&[self.batch.tokens.len(), hidden]);
        (0..4).for_each(|_| hash(&boundary));
        for moment in self.state.0.values().flat_map(|s| [&s.first_moment, &s.second_moment]) {
            std::hint::black_box(moment_blob::digest(moment).expect("the device works"));
            bytes += moment_blob::encoded_len(moment) as usize;
        }
        bytes
    }
}
