//! The job spec: everything that the result is a function of, and nothing else.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain};
use crate::limits::{MICROBATCHES_MAX, STEPS_MAX};

/// An f32 by its bits, so that its encoding is exact.
#[derive(Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct F32Bits(pub u32);

impl F32Bits {
    /// The number.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<f32> for F32Bits {
    fn from(value: f32) -> Self {
        Self(value.to_bits())
    }
}

impl fmt::Debug for F32Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

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
    pub optimizer: AdamW,
    /// The learning rate over the steps.
    pub schedule: RateSchedule,
    /// Bits of the operands of products.
    pub precision: PrecisionSpec,
    /// The loss at which the job fails.
    pub loss_limit: Option<LossLimit>,
    /// What is held out, and when the loss on it is taken.
    pub evaluation: Option<EvaluationSpec>,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AdapterSpec {
    /// Every tensor of the model.
    Full,
    /// Low-rank updates of some projections.
    Lora {
        rank: u32,
        /// The update is scaled by `alpha / rank`.
        alpha: F32Bits,
        /// Projections that have one, by their Hugging Face names, sorted.
        targets: Vec<String>,
    },
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
}

/// In which order sequences are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Order {
    /// As they stand, over and over.
    AsGiven,
    /// A new permutation each round of the data, from a seed.
    Shuffled { seed: u64 },
}

/// AdamW (Loshchilov and Hutter 2019), with clipping by the global norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: F32Bits,
    /// Decay of the second moment.
    pub beta2: F32Bits,
    /// Added to the root of the second moment.
    pub epsilon: F32Bits,
    /// Decoupled weight decay.
    pub weight_decay: F32Bits,
    /// Gradients of a larger global norm are scaled down to it; 0 turns clipping off.
    pub max_grad_norm: F32Bits,
    /// How the moments are kept between two steps.
    pub moments: MomentFormat,
}

/// How moments are kept between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum MomentFormat {
    /// Numbers as f32.
    F32,
    /// Codes of 8 bits, with a scale for each block of 256 numbers ([`crate::moment`]).
    Bits8,
}

impl MomentFormat {
    /// Bytes of both moments of a tensor of `elements` numbers, without headers.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::F32 => elements.saturating_mul(8),
            Self::Bits8 => {
                let scales = elements.div_ceil(256).saturating_mul(8);
                elements.saturating_mul(2).saturating_add(scales)
            }
        }
    }
}

/// The learning rate over the steps. At step s, counted from 0: `(s + 1) / warmup` of the peak
/// during warm-up, or `s / warmup` for the curves that begin at 0; then the curve over
/// `(s - warmup) / (steps - warmup)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RateSchedule {
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
        let finite = [
            self.optimizer.beta1,
            self.optimizer.beta2,
            self.optimizer.epsilon,
            self.optimizer.weight_decay,
            self.optimizer.max_grad_norm,
            self.schedule.learning_rate,
        ];
        let finite = finite.iter().all(|v| v.get().is_finite() && v.get() >= 0.0);
        require(finite, "optimizer values must be finite and not negative")?;
        let floor = match self.schedule.kind {
            ScheduleKind::FromZero(CurveFromZero::Cosine { floor }) => floor.get(),
            _ => 0.0,
        };
        require(
            (0.0..=1.0).contains(&floor),
            "the floor of the learning rate is no share",
        )?;
        self.loss_limit.map_or(Ok(()), |limit| limit.validate())?;
        let evaluation = self.evaluation;
        evaluation.map_or(Ok(()), |evaluation| evaluation.validate(self.steps))
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
