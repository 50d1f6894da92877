//! A training loop on one device that holds the whole model, and the digest of its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::coded::Precision;
use concord_kernels::ops::tree_sum;
use concord_kernels::rng::Philox;
use concord_kernels::tables::sin_cos;
use concord_kernels::{Device, KernelError, Tensor};

use super::model::{MadeModel, tiny_llama};
use crate::ModelError;
use crate::decoder::{
    Batch, Gradients, LoraSpec, Precisions, Stage, StageInput, StageOptions, TensorSource,
    Trainable, TrainableTensor,
};
use crate::train::{
    MomentForm, OptimizerSettings, StepRule, StepScalars, TensorRule, TrainState, gradient_norm,
    lora_init, mean_loss,
};

/// Key of weights and tokens of the golden fine-tunes.
const SEED: u64 = 2_026;
/// Key of the first values of low-rank factors.
const LORA_SEED: u64 = 7;
const RANK: u32 = 4;

const ADAM: OptimizerSettings = OptimizerSettings {
    rule: StepRule::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    },
    weight_decay: 0.01,
    max_grad_norm: 1.0,
};

/// The learning rate of a step: up to a peak over 5 steps, then half a cosine over 45.
fn rate(step: u32) -> f32 {
    let (peak, step) = (f64::from(5e-3_f32), f64::from(step));
    let cosine = || 0.5 * (1.0 + sin_cos(std::f64::consts::PI * ((step - 5.0) / 45.0)).1);
    let rate = match step < 5.0 {
        true => peak * (step + 1.0) / 5.0,
        false => peak * cosine(),
    };
    rate as f32
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FineTuneKind {
    /// Low-rank updates of all projections.
    Lora,
    /// Every tensor.
    Full,
    /// Every tensor, with moments in 8 bits.
    FullBits8,
}

impl FineTuneKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Lora, Self::Full, Self::FullBits8];

    fn moments(self) -> MomentForm {
        match self {
            Self::Lora | Self::Full => MomentForm::F32,
            Self::FullBits8 => MomentForm::Bits8,
        }
    }
}

/// A fine-tune. The result of its [`FineTuneRun`] is a function of it alone.
#[derive(Clone, Debug)]
pub struct FineTune {
    /// What is trained.
    pub kind: FineTuneKind,
    /// The model; its seed also makes the tokens.
    pub model: MadeModel,
    /// Microbatches of a step.
    pub microbatches: u32,
    /// Sequences of a microbatch.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub sequence_len: usize,
}

/// A running fine-tune.
#[derive(Debug)]
pub struct FineTuneRun {
    fit: FineTune,
    device: Device,
    stage: Stage,
    state: TrainState,
    steps: u32,
    /// Hashes every loss and gradient norm so far.
    scalars: blake3::Hasher,
}

impl FineTune {
    /// One of the golden fine-tunes.
    pub fn golden(kind: FineTuneKind) -> Self {
        Self {
            kind,
            model: MadeModel {
                config: Arc::new(tiny_llama()),
                seed: SEED,
                reach: 0.25,
            },
            microbatches: 3,
            sequences: 2,
            sequence_len: 19,
        }
    }

    /// The first state, on `device`.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] where the device fails.
    pub fn start(&self, device: &Device) -> Result<FineTuneRun, ModelError> {
        let config = self.model.config.clone();
        let (lora, trainable) = match self.kind {
            FineTuneKind::Full | FineTuneKind::FullBits8 => (None, Trainable::Full),
            FineTuneKind::Lora => {
                let alpha = 2.0 * RANK as f32;
                let lora = LoraSpec::uniform(RANK, alpha, self.model.config.projections());
                (Some(lora.clone()), Trainable::Lora(lora))
            }
        };
        let first = |(index, tensor): (usize, &TrainableTensor)| {
            let value = match self.kind {
                FineTuneKind::Lora => lora_init(tensor, index, LORA_SEED),
                _ => self.model.tensor(&tensor.name)?,
            };
            Ok((tensor.name.clone(), value))
        };
        let values: BTreeMap<String, Tensor> = trainable
            .tensors(&config)
            .iter()
            .enumerate()
            .map(first)
            .collect::<Result<_, ModelError>>()?;
        let options = StageOptions {
            device: device.clone(),
            layers: (0..config.layers as u32).into(),
            positions: config.max_positions,
            config,
            precisions: Precisions {
                weights: Precision::I16,
                activations: Precision::I16,
                key_values: Precision::I16,
            },
            trains_all: lora.is_none(),
            lora,
        };
        Ok(FineTuneRun {
            fit: self.clone(),
            device: device.clone(),
            stage: Stage::load(options, &self.model, &values)?,
            state: TrainState::fresh(values, self.kind.moments()).placed(device)?,
            steps: 0,
            scalars: blake3::Hasher::new(),
        })
    }

    /// A sequence with a rule that can be learnt, and some noise.
    fn tokens(&self, step: u32, microbatch: u32) -> Vec<u32> {
        let vocab = self.model.config.vocab as u32;
        let key = 1 << 32 | u64::from(step) << 8 | u64::from(microbatch);
        let stream = Philox::new(self.model.seed, key);
        let mut token = 1;
        let mut next = |counter| {
            let [noise, choice, ..] = stream.words(counter);
            token = if choice % 8 == 0 {
                noise % vocab
            } else {
                (3 * token + 7) % vocab
            };
            token
        };
        let count = self.sequences * self.sequence_len;
        (0..count as u64).map(&mut next).collect()
    }

    fn batch(&self, step: u32, microbatch: u32) -> Batch {
        let tokens = self.tokens(step, microbatch);
        Batch::whole(self.sequence_len, tokens)
    }
}

impl FineTuneRun {
    /// Steps done.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The model as it is now.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// One step: sums the microbatches along the tree and updates. Returns the mean loss before the
    /// update.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the training overflows; [`KernelError::Cuda`] where a GPU
    /// fails.
    pub fn step(&mut self) -> Result<f32, KernelError> {
        let (device, step) = (&self.device, self.steps);
        let (mut sums, mut targets) = (Vec::new(), 0);
        let mut one = |index: usize| {
            let batch = self.fit.batch(step, index as u32);
            targets += batch.targets.iter().flatten().count() as u64;
            let (sum, gradients) = self.microbatch(&batch)?;
            sums.push(sum);
            Ok(gradients)
        };
        let count = self.fit.microbatches as usize;
        let gradients = tree_sum(count, &mut one, &mut |a, b| add(device, a, b))?;
        let gradients = gradients.joined(device)?;
        let tensors: Vec<&Tensor> = gradients.values().map(|gradient| &**gradient).collect();
        let squares = device.sum_squares(&tensors)?;
        let scalars = StepScalars {
            step,
            targets,
            grad_norm: gradient_norm(&squares, targets),
            learning_rate: rate(step),
        };
        self.state = self
            .state
            .updated(device, &gradients, &ADAM, &scalars, |_| TensorRule::USUAL)?;
        self.stage.refresh(&self.state)?;
        self.steps += 1;
        let loss = mean_loss(&sums, targets);
        for scalar in [loss, scalars.grad_norm] {
            self.scalars.update(&scalar.to_le_bytes());
        }
        Ok(loss)
    }

    fn microbatch(&self, batch: &Batch) -> Result<(f32, Gradients), KernelError> {
        let mut gradients = Gradients::default();
        let (hidden, tape) = self.stage.forward(batch, StageInput::Tokens)?;
        let loss = self.stage.loss(batch, &hidden, &mut gradients)?;
        self.stage
            .backward(batch, &tape, loss.d_hidden, &mut gradients)?;
        Ok((loss.sum, gradients))
    }

    /// The digest of every loss and gradient norm so far, and of the current values and moments, in
    /// hex.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn digest(&self) -> Result<String, KernelError> {
        let mut hasher = self.scalars.clone();
        for (name, tensor) in &self.state.0 {
            hasher.update(name.as_bytes());
            for value in tensor.value.values()?.iter() {
                hasher.update(&value.to_le_bytes());
            }
            for moment in [&tensor.first_moment, &tensor.second_moment] {
                hasher.update(&moment.bytes()?);
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// `a += b` in the tree over microbatches; the first error is kept.
fn add(device: &Device, a: &mut Result<Gradients, KernelError>, b: Result<Gradients, KernelError>) {
    if let Ok(sum) = a
        && let Err(error) = b.and_then(|b| sum.add(device, &b))
    {
        *a = Err(error);
    }
}
