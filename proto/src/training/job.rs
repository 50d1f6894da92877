//! The job spec: everything that the result is a function of, and nothing else.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};

use super::f32_bits::F32Bits;
use super::lora::LoraUpdates;
use super::optimizer::Optimizer;
use crate::crypto::{Digest, Domain};
use crate::limits::{MICROBATCHES_MAX, STEPS_MAX};

/// The least dropout, half of the steps in which it is drawn.
const DROPOUT_MIN: f32 = 1.0 / 131_072.0;

/// The digest of a job spec.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct JobId(pub Digest);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.0.short())
    }
}

impl FromStr for JobId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

/// What a fine-tune is, bit for bit. Two runs of one spec on any machines give the same chain of
/// step records.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct JobSpec {
    /// Version of the arithmetic contract.
    pub arithmetic: u32,
    /// Blob address of the [`crate::manifest::ModelManifest`].
    pub model: Digest,
    /// Blob address of the [`crate::manifest::DataManifest`].
    pub data: Digest,
    /// What is trained.
    pub adapter: AdapterSpec,
    /// Blob address of the [`crate::manifest::StateManifest`] before the first step.
    pub initial_state: Digest,
    /// The trained tensors, in the order of their names.
    pub trainable: Vec<TrainedTensor>,
    /// Decoder layers of the model.
    pub layers: u32,
    /// In which order sequences are taken.
    pub order: Order,
    /// Sequences in a microbatch.
    pub micro_batch_size: u32,
    /// Microbatches in a step, over all replicas.
    pub microbatches: u32,
    /// Updates.
    pub steps: u32,
    pub optimizer: Optimizer,
    /// The learning rate over the steps.
    pub schedule: RateSchedule,
    /// Bits of the operands of products.
    pub precision: PrecisionSpec,
    /// The loss at which the job fails.
    pub loss_limit: Option<LossLimit>,
    /// What is held out, and when the loss on it is taken.
    pub evaluation: Option<EvaluationSpec>,
    /// Dropout, noise, and terms of the loss.
    pub regularization: Regularization,
}

/// What makes a step of training differ from the plain loss of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Regularization {
    /// The share of the inputs of low-rank updates that is dropped, 0 or more and below 1.
    pub lora_dropout: F32Bits,
    /// The alpha of noise on embeddings (NEFTune), 0 or more.
    pub embedding_noise: F32Bits,
    /// The share of each target that is spread over the vocabulary, 0 or more and below 1.
    pub label_smoothing: F32Bits,
    /// The factor on the squared log-sum-exp of the logits, 0 or more.
    pub z_loss: F32Bits,
    /// What dropout and noise are drawn from; 0 where nothing is drawn.
    pub seed: u64,
}

impl Regularization {
    /// Whether random numbers are drawn.
    pub fn draws(&self) -> bool {
        self.lora_dropout.get() != 0.0 || self.embedding_noise.get() != 0.0
    }

    /// Why it cannot be computed.
    fn check(&self, adapter: &AdapterSpec) -> Result<(), &'static str> {
        let shares = [self.lora_dropout, self.label_smoothing];
        let factors = [self.embedding_noise, self.z_loss];
        let is_factor = |v: &F32Bits| v.get().is_finite() && v.get() >= 0.0;
        if !shares.iter().all(|v| (0.0..1.0).contains(&v.get())) {
            return Err("dropout and label smoothing must be shares below 1");
        }
        if self.lora_dropout.get() != 0.0 && self.lora_dropout.get() < DROPOUT_MIN {
            return Err("a dropout that is rounded to none");
        }
        if !factors.iter().all(is_factor) {
            return Err("noise and z-loss must be finite and not negative");
        }
        if self.lora_dropout.get() != 0.0 && *adapter == AdapterSpec::Full {
            return Err("dropout of an adapter that it lacks");
        }
        if !self.draws() && self.seed != 0 {
            return Err("a seed from which nothing is drawn");
        }
        Ok(())
    }
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AdapterSpec {
    /// Every tensor of the model.
    Full,
    /// Low-rank updates of some projections.
    Lora(LoraUpdates),
}

/// Where in the decoder a tensor stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum ModelPlace {
    /// Before the first layer.
    Embed,
    /// In a decoder layer.
    Layer(u32),
    /// After the last layer.
    Head,
    /// The embedding that is also the head: both ends hold it.
    EmbedAndHead,
}

/// A tensor that the job changes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TrainedTensor {
    /// Its name in the file that comes out.
    pub name: String,
    pub shape: Vec<u64>,
    /// Where it stands.
    pub place: ModelPlace,
    /// Whether weight decay acts on it.
    pub decays: bool,
}

/// In which order sequences are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Order {
    /// As they stand, over and over.
    AsGiven,
    /// A new permutation each round of the data, from a seed.
    Shuffled { seed: u64 },
}

/// The learning rate over the steps. At step s, counted from 0: `(s + 1) / warmup` of the peak
/// during warm-up, or `s / warmup` for the curves that begin at 0; then the curve over
/// `(s - warmup) / (steps - warmup)`. Encoded by hand, because of its first field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSchedule {
    /// The rate of matrices B, and of what has one dimension, over that of the rest (LoRA+), not 1.
    /// Where there is one, a byte 255 and its bits (u32) come first, and nothing where there is
    /// none.
    pub b_ratio: Option<F32Bits>,
    /// The curve after warm-up.
    pub kind: ScheduleKind,
    /// The peak.
    pub learning_rate: F32Bits,
    /// Steps of warm-up.
    pub warmup_steps: u32,
}

/// The curve of a learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ScheduleKind {
    /// Half a cosine, down to 0.
    Cosine,
    /// A line down to 0.
    Linear,
    /// The peak throughout.
    Constant,
    /// One whose warm-up begins at rate 0, as in the trainer of Hugging Face.
    FromZero(CurveFromZero),
    /// REX (Chen et al. 2021) as Axolotl has it: where z is what is left of the curve after the
    /// step, as a share, `z / (0.1 + 0.9 z)`, down to a share of the peak.
    Rex {
        /// The share, from 0 to 1.
        floor: F32Bits,
    },
}

/// The curve of a learning rate whose first step of warm-up has rate 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum CurveFromZero {
    /// Half a cosine, down to a share of the peak.
    Cosine {
        /// The share, from 0 to 1.
        floor: F32Bits,
    },
    /// A line down to 0.
    Linear,
    /// The peak throughout.
    Constant,
    /// The root of `warmup / s`; without warm-up, of `10000 / (s + 10000)`.
    InverseSqrt,
}

/// Bits of the operands of products: 8, 14 or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PrecisionSpec {
    pub weights: u8,
    /// Activations and gradients.
    pub activations: u8,
}

/// Sequences that no update learns from, and when the loss on them is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EvaluationSpec {
    pub held_out: HeldOut,
    /// Sequences in a microbatch of an evaluation; the last one may have fewer.
    pub micro_batch_size: u32,
    /// Updates from one evaluation to the next; the last update has one after it in any case.
    pub every: u32,
    /// Whether there is one before the first update, too.
    pub at_start: bool,
    /// When the job ends before its last update.
    pub patience: Option<Patience>,
    /// Whether the result is the state with the lowest loss, and not the last one.
    pub keep_best: bool,
}

/// Which sequences of the data set are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum HeldOut {
    /// The last ones.
    Last { sequences: u32 },
    /// Those whose keyed digests are lowest, in the order of the data set.
    Drawn { sequences: u32, seed: u64 },
}

impl HeldOut {
    /// How many they are.
    pub fn sequences(self) -> u32 {
        match self {
            Self::Last { sequences } | Self::Drawn { sequences, .. } => sequences,
        }
    }
}

/// The job ends after so many evaluations in a row whose loss is not below the lowest one before by
/// more than a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Patience {
    pub evaluations: u32,
    /// In nats.
    pub threshold: F32Bits,
}

/// The job fails after so many updates in a row whose loss is above a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LossLimit {
    /// In nats.
    pub threshold: F32Bits,
    pub updates: u32,
}

/// A job spec that cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job spec cannot be run: {0}")]
pub struct InvalidSpec(pub String);

impl JobSpec {
    /// The job id.
    pub fn id(&self) -> JobId {
        JobId(Digest::of_value(Domain::Job, self))
    }

    /// Sequences in a step, over all its microbatches.
    pub fn sequences_per_step(&self) -> u64 {
        u64::from(self.microbatches) * u64::from(self.micro_batch_size)
    }

    /// Checks what can be checked without the model.
    ///
    /// # Errors
    /// [`InvalidSpec`], naming the first field that does not hold.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let require = |holds: bool, why: &str| {
            if holds {
                Ok(())
            } else {
                Err(InvalidSpec(why.to_string()))
            }
        };
        require(
            self.arithmetic == crate::ARITHMETIC_VERSION,
            "another arithmetic version",
        )?;
        require((1..=STEPS_MAX).contains(&self.steps), "steps out of range")?;
        require(
            (1..=MICROBATCHES_MAX).contains(&self.microbatches),
            "microbatches out of range",
        )?;
        require(
            (1..=65_536).contains(&self.micro_batch_size),
            "micro_batch_size out of range",
        )?;
        require((1..=10_000).contains(&self.layers), "layers out of range")?;
        require(!self.trainable.is_empty(), "nothing to train")?;
        if let AdapterSpec::Lora(updates) = &self.adapter {
            updates.validate().map_err(InvalidSpec)?;
        }
        let sorted = self
            .trainable
            .windows(2)
            .all(|pair| pair[0].name < pair[1].name);
        require(
            sorted,
            "trained tensors are not in the order of their names",
        )?;
        let inside = |place| !matches!(place, ModelPlace::Layer(layer) if layer >= self.layers);
        let all_inside = self.trainable.iter().all(|tensor| inside(tensor.place));
        require(
            all_inside,
            "a trained tensor lies in a layer that the model lacks",
        )?;
        let known = |bits| matches!(bits, 8 | 14 | 16);
        let precision = known(self.precision.weights) && known(self.precision.activations);
        require(precision, "precisions must be 8, 14 or 16 bits")?;
        self.optimizer
            .check()
            .map_err(|why| InvalidSpec(why.to_string()))?;
        self.schedule
            .check(&self.adapter)
            .map_err(|why| InvalidSpec(why.to_string()))?;
        self.loss_limit.map_or(Ok(()), |limit| limit.validate())?;
        let evaluation = self.evaluation;
        evaluation.map_or(Ok(()), |evaluation| evaluation.validate(self.steps))?;
        let regularization = self.regularization.check(&self.adapter);
        regularization.map_err(|why| InvalidSpec(why.to_string()))
    }
}

impl EvaluationSpec {
    /// Microbatches of an evaluation.
    pub fn microbatches(&self) -> u32 {
        self.held_out
            .sequences()
            .div_ceil(self.micro_batch_size.max(1))
    }

    /// Checks it, for a job of so many updates.
    ///
    /// # Errors
    /// [`InvalidSpec`], naming the first field that does not hold.
    pub fn validate(&self, updates: u32) -> Result<(), InvalidSpec> {
        let invalid = |why: String| Err(InvalidSpec(why));
        if !(1..=65_536).contains(&self.micro_batch_size) {
            return invalid("micro_batch_size of the evaluation out of range".to_string());
        }
        let count = self.microbatches();
        if !(1..=MICROBATCHES_MAX).contains(&count) {
            return invalid(format!(
                "an evaluation of {count} microbatches: from 1 to {MICROBATCHES_MAX} are possible; \
                 hold fewer sequences out, or set a larger eval_batch_size"
            ));
        }
        if self.every == 0 || updates > STEPS_MAX / 2 {
            return invalid("steps between two evaluations out of range".to_string());
        }
        let is_right = |patience: Patience| {
            let threshold = patience.threshold.get();
            patience.evaluations > 0 && threshold.is_finite() && threshold >= 0.0
        };
        match self.patience.is_none_or(is_right) {
            true => Ok(()),
            false => invalid("the patience of the evaluation out of range".to_string()),
        }
    }
}

impl LossLimit {
    /// Checks it.
    ///
    /// # Errors
    /// [`InvalidSpec`] where its numbers are out of range.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        match self.threshold.get().is_finite() && self.updates > 0 {
            true => Ok(()),
            false => Err(InvalidSpec(
                "the limit of the loss out of range".to_string(),
            )),
        }
    }
}
