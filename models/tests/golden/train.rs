//! The training loop of one worker that holds the whole model, and the digest of what it made.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::tree_sum;
use concord_kernels::{Device, Tensor};
use concord_models::config::Projection;
use concord_models::decoder::{
    Batch, Gradients, LoraSpec, Precisions, Stage, StageInput, StageOptions, TensorSource,
    Trainable, TrainableTensor, next_tokens,
};
use concord_models::train::{
    AdamSettings, Curve, LearningRate, StepScalars, TrainState, gradient_norm, lora_init, mean_loss,
};

use crate::model::{Made, config, tokens};

const SEED: u64 = 7;
const RANK: u32 = 4;
const MICROBATCHES: u32 = 3;
const SEQUENCES: usize = 2;
const SEQUENCE_LEN: usize = 19;

const ADAM: AdamSettings = AdamSettings {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.01,
    max_grad_norm: 1.0,
};

const RATE: LearningRate = LearningRate {
    curve: Curve::Cosine,
    peak: 5e-3,
    warmup_steps: 5,
    steps: 50,
};

/// What is trained.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Low-rank updates of all projections.
    Lora,
    /// Every tensor.
    Full,
}

struct Training {
    device: Device,
    stage: Stage,
    state: TrainState,
    hasher: blake3::Hasher,
}

/// Trains on `device` and gives the digest after each of `steps` (ascending).
pub fn digests(device: &Device, kind: Kind, steps: &[u32]) -> Vec<String> {
    let mut training = Training::new(device, kind);
    let mut digests = Vec::new();
    for step in 0..*steps.last().expect("a golden run has steps") {
        training.step(step);
        if steps.contains(&(step + 1)) {
            digests.push(training.digest());
        }
    }
    digests
}

impl Training {
    fn new(device: &Device, kind: Kind) -> Self {
        let config = Arc::new(config());
        let (lora, trainable) = match kind {
            Kind::Full => (None, Trainable::Full),
            Kind::Lora => {
                let lora = LoraSpec {
                    rank: RANK,
                    scale: 2.0,
                    targets: Projection::ALL.into_iter().collect(),
                };
                let (rank, targets) = (RANK, lora.targets.clone());
                (Some(lora), Trainable::Lora { rank, targets })
            }
        };
        let first = |(index, tensor): (usize, &TrainableTensor)| {
            let value = match kind {
                Kind::Full => Made.tensor(&tensor.name).expect("weights are made"),
                Kind::Lora => lora_init(tensor, index, SEED),
            };
            (tensor.name.clone(), value)
        };
        let tensors = trainable.tensors(&config);
        let values: BTreeMap<String, Tensor> = tensors.iter().enumerate().map(first).collect();
        let options = StageOptions {
            device: device.clone(),
            layers: 0..config.layers as u32,
            config,
            precisions: Precisions {
                weights: Precision::I16,
                activations: Precision::I16,
            },
            trains_all: lora.is_none(),
            lora,
            positions: SEQUENCE_LEN,
        };
        Self {
            device: device.clone(),
            stage: Stage::load(options, &Made, &values).expect("weights are made"),
            state: TrainState::fresh(values),
            hasher: blake3::Hasher::new(),
        }
    }

    /// One step: microbatches by the tree, one update; the loss goes into the digest.
    fn step(&mut self, step: u32) {
        let (mut sums, mut targets) = (Vec::new(), 0);
        let mut one = |index: usize| {
            let batch = batch(step, index as u32);
            targets += batch.targets.iter().flatten().count() as u64;
            let (sum, gradients) = self.microbatch(&batch);
            sums.push(sum);
            gradients
        };
        let device = &self.device;
        let add = &mut |a: &mut Gradients, b: Gradients| a.add(device, &b);
        let gradients = tree_sum(MICROBATCHES as usize, &mut one, add).joined(device);
        let squares = gradients.values().map(|g| device.sum_squares(g.data()));
        let scalars = StepScalars {
            step,
            targets,
            grad_norm: gradient_norm(&squares.collect::<Vec<f32>>(), targets),
            learning_rate: RATE.at(step),
        };
        let next = self.state.updated(device, &gradients, &ADAM, &scalars);
        self.state = next.expect("nothing overflows");
        self.stage.refresh(&self.state.values());
        for scalar in [mean_loss(&sums, targets), scalars.grad_norm] {
            self.hasher.update(&scalar.to_le_bytes());
        }
    }

    fn microbatch(&self, batch: &Batch) -> (f32, Gradients) {
        let mut gradients = Gradients::default();
        let forward = self.stage.forward(batch, StageInput::Tokens);
        let (hidden, tape) = forward.expect("nothing overflows");
        let loss = self.stage.loss(batch, &hidden, &mut gradients);
        let loss = loss.expect("nothing overflows");
        let backward = self
            .stage
            .backward(batch, &tape, loss.d_hidden, &mut gradients);
        backward.expect("nothing overflows");
        (loss.sum, gradients)
    }

    /// Over every loss and gradient norm so far, and the values and moments as they are now.
    fn digest(&self) -> String {
        let mut hasher = self.hasher.clone();
        for (name, tensor) in &self.state.0 {
            hasher.update(name.as_bytes());
            for part in [&tensor.value, &tensor.first_moment, &tensor.second_moment] {
                hasher.update(&part.to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn batch(step: u32, microbatch: u32) -> Batch {
    let tokens = tokens(step, microbatch, SEQUENCES * SEQUENCE_LEN);
    let targets = next_tokens(&tokens, &vec![1; tokens.len()], SEQUENCE_LEN);
    Batch {
        sequences: SEQUENCES,
        sequence_len: SEQUENCE_LEN,
        tokens,
        targets,
    }
}
