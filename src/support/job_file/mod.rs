//! The job file: a fine-tune in YAML, with the key names that other fine-tuning tools use.

mod columns;
mod datasets;
pub mod explain;
mod foreign;
mod given;
pub mod help;
mod keys;
mod known;
pub mod sample;
pub mod schema;
mod timing;
mod translate;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_data::DatasetSource;
use concord_kernels::packed::QuantFormat;
use concord_models::config::{DecoderConfig, Projection};
use concord_models::decoder::Trainable;
use concord_models::memory::TrainingRun;
use concord_models::peft::Adapter;
use concord_proto::{
    AdamW, CurveFromZero, MomentFormat, Order, PrecisionSpec, RateSchedule, ScheduleKind,
};
use concord_recipe::Expected;
use concord_runtime::spec;

pub use given::{GivenJob, ReadOptions};
use keys::Keys;
use known::Section;
pub use timing::{JobTiming, Steps};

/// What the words of `optimizer` mean, in the order of the table.
const MOMENTS: [MomentFormat; 6] = [
    MomentFormat::F32,
    MomentFormat::F32,
    MomentFormat::Bits8,
    MomentFormat::Bits8,
    MomentFormat::Bits8,
    MomentFormat::Bits8,
];

/// The longest sequence.
pub const LEN_MAX: u32 = 1 << 20;

/// The default of `lora_r`.
const LORA_R: u32 = 8;

/// The default of `lora_alpha`.
const LORA_ALPHA: f32 = 16.0;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank updates of projections.
    Lora,
    /// Every tensor of the model.
    Full,
}

/// The shape of a LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraShape {
    /// Rank.
    pub r: u32,
    /// The update is scaled by `alpha / r`.
    pub alpha: f32,
    /// Projections that have an update.
    pub targets: BTreeSet<Projection>,
}

/// A job file whose every value is in range. Paths are relative to the current directory.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFile {
    /// A model folder, or an id on the Hugging Face hub.
    pub base_model: String,
    /// At least one; a `tokens` file is the only one.
    pub datasets: Vec<DatasetSource>,
    /// What is trained.
    pub adapter: AdapterKind,
    /// Whether the file has no `adapter`.
    pub adapter_is_assumed: bool,
    /// What the matrices of the layers are quantised to as they are read.
    pub load_in: Option<QuantFormat>,
    /// A PEFT folder that the training starts from.
    pub initial_adapter: Option<PathBuf>,
    /// Tokens of a sequence; the most there can be, until the data have decided it.
    pub sequence_len: u32,
    /// Whether the longest example decides the length.
    pub is_longest: bool,
    /// Sequences of a microbatch.
    pub micro_batch_size: u32,
    /// Microbatches of a step, over all replicas.
    pub gradient_accumulation_steps: u32,
    /// Steps, warm-up and checkpoints.
    pub timing: JobTiming,
    /// The peak of the learning rate.
    pub learning_rate: f32,
    /// Its curve after warm-up.
    pub lr_scheduler: ScheduleKind,
    /// How AdamW's moments are kept.
    pub moments: MomentFormat,
    /// Decay of AdamW's first moment.
    pub adam_beta1: f32,
    /// Decay of AdamW's second moment.
    pub adam_beta2: f32,
    /// Added to the square root of the second moment.
    pub adam_epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Global norm that gradients are clipped to; 0 turns clipping off.
    pub max_grad_norm: f32,
    /// The seed of the order of sequences and of a fresh adapter.
    pub seed: u64,
    /// Whether sequences come in a new order each round of the data; never for a `tokens` file.
    pub shuffle: bool,
    /// Where the result goes.
    pub output_dir: PathBuf,
    /// Bits of the operands of products.
    pub precision: PrecisionSpec,
    /// Whether short examples share a sequence.
    pub sample_packing: bool,
    /// Whether activations are recomputed in the backward pass instead of kept.
    pub recompute: bool,
    /// Tokens that another tool's file names, and that the tokenizer must have.
    pub expected: Vec<Expected>,
    lora_r: Option<u32>,
    lora_alpha: Option<f32>,
    lora_target_modules: Option<BTreeSet<Projection>>,
}

impl JobFile {
    /// Reads and checks a job file of Concord or of another tool. Neither model nor data are
    /// opened, but for the first row of a data set whose columns say what it is.
    ///
    /// # Errors
    /// Naming the file, the line where it is certain, the key, its value and what is allowed.
    pub fn read(path: &Path, asked: &ReadOptions) -> anyhow::Result<Self> {
        Self::of(&GivenJob::read(path, asked)?)
    }

    #[cfg(test)]
    fn parse(path: &Path, text: &str) -> anyhow::Result<Self> {
        Self::of(&GivenJob::parse(path, text, &ReadOptions::default())?)
    }

    /// The job of a file that was read.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(given: &GivenJob) -> anyhow::Result<Self> {
        let keys = Keys::of(given);
        match given.is_own() {
            true => keys.check()?,
            false => given.check_foreign(keys.wrong())?,
        }
        let adapter = keys.word("adapter", &[AdapterKind::Lora, AdapterKind::Full])?;
        let mut datasets = datasets::read(&keys)?;
        let seed = keys.seed("seed")?;
        for source in &mut datasets {
            source.seed = seed;
        }
        let job = Self {
            timing: JobTiming::read(&keys, given)?,
            base_model: keys.path("base_model")?,
            load_in: load_in(&keys, adapter)?,
            adapter,
            adapter_is_assumed: !keys.has("adapter"),
            initial_adapter: keys.path_if("initial_adapter")?.map(PathBuf::from),
            sequence_len: keys.whole_or_word("sequence_len")?.unwrap_or(LEN_MAX),
            is_longest: keys.whole_or_word("sequence_len")?.is_none(),
            micro_batch_size: keys.whole("micro_batch_size")?,
            gradient_accumulation_steps: keys.whole("gradient_accumulation_steps")?,
            learning_rate: keys.number("learning_rate")?,
            lr_scheduler: curve(&keys)?,
            moments: keys.word("optimizer", &MOMENTS)?,
            adam_beta1: keys.number("adam_beta1")?,
            adam_beta2: keys.number("adam_beta2")?,
            adam_epsilon: keys.number("adam_epsilon")?,
            weight_decay: keys.number("weight_decay")?,
            max_grad_norm: keys.number("max_grad_norm")?,
            seed,
            shuffle: datasets::shuffle(&keys, &datasets)?,
            datasets,
            output_dir: keys.path("output_dir")?.into(),
            precision: precision(&keys)?,
            sample_packing: keys.flag("sample_packing")?,
            recompute: keys.flag("recompute")?,
            expected: given.resolved.expected.clone(),
            lora_r: keys.whole_if("lora_r")?,
            lora_alpha: keys.number_if("lora_alpha")?,
            lora_target_modules: targets(&keys)?,
        };
        job.check_adapter(&keys)?;
        if keys.has("num_epochs") && job.is_grouped() {
            let because = "on a data set of type `tokens`, which says its steps: give `max_steps`";
            return Err(keys.idle("num_epochs", because));
        }
        Ok(job)
    }

    /// Whether its data say themselves which tokens are a sequence, and of which step.
    pub fn is_grouped(&self) -> bool {
        self.datasets.iter().any(datasets::is_grouped)
    }

    /// Refuses keys of LoRA in a full fine-tune, where they would have no effect.
    fn check_adapter(&self, keys: &Keys) -> anyhow::Result<()> {
        let lora = [
            "lora_r",
            "lora_alpha",
            "lora_target_modules",
            "initial_adapter",
        ];
        let idle = lora.into_iter().find(|key| keys.has(key));
        match (self.adapter, idle) {
            (AdapterKind::Full, Some(key)) => bail!(
                "{}: `{key}` has no effect with `adapter: full`; remove it, or set `adapter: lora`",
                keys.place(key)
            ),
            _ => Ok(()),
        }
    }

    /// The shape of the adapter, which is that of `initial` if the training starts from one.
    ///
    /// # Errors
    /// Where the file asks for another shape than `initial` has, or for projections that `model`
    /// lacks.
    pub fn lora(
        &self,
        initial: Option<&Adapter>,
        model: &DecoderConfig,
    ) -> anyhow::Result<LoraShape> {
        let own: BTreeSet<Projection> = model.projections().into_iter().collect();
        let asked = LoraShape {
            r: self.lora_r.unwrap_or(LORA_R),
            alpha: self.lora_alpha.unwrap_or(LORA_ALPHA),
            targets: match &self.lora_target_modules {
                Some(targets) => targets.clone(),
                None => own.clone(),
            },
        };
        if let Some(strange) = asked.targets.difference(&own).next() {
            let own: Vec<&str> = own.iter().map(|p| model.projection_name(*p)).collect();
            bail!(
                "`lora_target_modules` has {}, which the base model lacks: its projections are {}",
                strange.name(),
                own.join(", ")
            );
        }
        let Some(initial) = initial else {
            return Ok(asked);
        };
        let found = LoraShape {
            r: initial.r,
            alpha: initial.alpha,
            targets: initial.targets.iter().copied().collect(),
        };
        let contradiction = if self.lora_r.is_some_and(|r| r != found.r) {
            Some(("lora_r", asked.r.to_string(), found.r.to_string()))
        } else if self.lora_alpha.is_some_and(|alpha| alpha != found.alpha) {
            Some((
                "lora_alpha",
                asked.alpha.to_string(),
                found.alpha.to_string(),
            ))
        } else if self.lora_target_modules.is_some() && asked.targets != found.targets {
            Some((
                "lora_target_modules",
                names(&asked.targets),
                names(&found.targets),
            ))
        } else {
            None
        };
        match contradiction {
            None => Ok(found),
            Some((key, asked, found)) => bail!(
                "`{key}` is {asked}, but the initial adapter has {found}; remove `{key}` to take \
                 over the adapter's"
            ),
        }
    }

    /// The properties on which its memory depends. `lora` is the shape of its adapter, `None` where
    /// every tensor is trained.
    pub fn training_run(&self, lora: Option<&LoraShape>) -> TrainingRun {
        TrainingRun {
            trainable: match lora {
                None => Trainable::Full,
                Some(lora) => Trainable::Lora {
                    rank: lora.r,
                    targets: lora.targets.clone(),
                },
            },
            sequence_len: self.sequence_len,
            micro_batch_size: self.micro_batch_size,
            microbatches: self.gradient_accumulation_steps,
            recompute: self.recompute,
            moments: spec::moment_form(self.moments),
        }
    }

    /// The optimizer, in the form of the job spec.
    pub fn optimizer(&self) -> AdamW {
        AdamW {
            beta1: self.adam_beta1.into(),
            beta2: self.adam_beta2.into(),
            epsilon: self.adam_epsilon.into(),
            weight_decay: self.weight_decay.into(),
            max_grad_norm: self.max_grad_norm.into(),
            moments: self.moments,
        }
    }

    /// The learning rate over the steps, in the form of the job spec.
    pub fn schedule(&self, steps: &Steps) -> RateSchedule {
        let zero = CurveFromZero::Cosine {
            floor: 0.0_f32.into(),
        };
        // Without warm-up a curve is the same from wherever it begins: one job, one hash.
        let kind = match (self.lr_scheduler, steps.warmup) {
            (ScheduleKind::FromZero(curve), 0) if curve == zero => ScheduleKind::Cosine,
            (ScheduleKind::FromZero(CurveFromZero::Linear), 0) => ScheduleKind::Linear,
            (ScheduleKind::FromZero(CurveFromZero::Constant), 0) => ScheduleKind::Constant,
            (kind, _) => kind,
        };
        RateSchedule {
            kind,
            learning_rate: self.learning_rate.into(),
            warmup_steps: steps.warmup,
        }
    }

    /// The order of sequences, in the form of the job spec.
    pub fn order(&self) -> Order {
        match self.shuffle {
            true => Order::Shuffled { seed: self.seed },
            false => Order::AsGiven,
        }
    }
}

/// The curve of the learning rate.
fn curve(keys: &Keys) -> anyhow::Result<ScheduleKind> {
    let floor = keys.number("min_lr_ratio")?.into();
    let from_zero = CurveFromZero::Cosine { floor };
    let curves = [
        ScheduleKind::Cosine,
        ScheduleKind::Linear,
        ScheduleKind::Constant,
        ScheduleKind::FromZero(from_zero),
        ScheduleKind::FromZero(CurveFromZero::Linear),
        ScheduleKind::FromZero(CurveFromZero::Constant),
        ScheduleKind::FromZero(CurveFromZero::InverseSqrt),
    ];
    let curve = keys.word("lr_scheduler", &curves)?;
    if keys.has("min_lr_ratio") && curve != ScheduleKind::FromZero(from_zero) {
        return Err(keys.idle("min_lr_ratio", "without `lr_scheduler: cosine_from_zero`"));
    }
    Ok(curve)
}

/// What the base model is quantised to.
fn load_in(keys: &Keys, adapter: AdapterKind) -> anyhow::Result<Option<QuantFormat>> {
    let four = keys.flag("load_in_4bit")?;
    let eight = keys.flag("load_in_8bit")?;
    let kind = keys.word("bnb_4bit_quant_type", &[QuantFormat::Nf4, QuantFormat::Q4K])?;
    if !four && keys.has("bnb_4bit_quant_type") {
        return Err(keys.idle("bnb_4bit_quant_type", "without `load_in_4bit: true`"));
    }
    let (key, format) = match (four, eight) {
        (true, true) => bail!(
            "{}: `load_in_8bit` and `load_in_4bit` are both true; remove one",
            keys.place("load_in_8bit")
        ),
        (true, false) => ("load_in_4bit", kind),
        (false, true) => ("load_in_8bit", QuantFormat::Q8_0),
        (false, false) => return Ok(None),
    };
    match adapter {
        AdapterKind::Lora => Ok(Some(format)),
        AdapterKind::Full => bail!(
            "{}: `{key}` and `adapter: full` exclude each other: weights that are trained are not \
             quantised; remove it, or set `adapter: lora`",
            keys.place(key)
        ),
    }
}

fn precision(keys: &Keys) -> anyhow::Result<PrecisionSpec> {
    let keys = keys.map("precision", Section::Precision)?;
    keys.check()?;
    // The table allows 8, 14 and 16.
    let bits = |name| anyhow::Ok(u8::try_from(keys.whole(name)?)?);
    Ok(PrecisionSpec {
        weights: bits("weights")?,
        activations: bits("activations")?,
    })
}

fn targets(keys: &Keys) -> anyhow::Result<Option<BTreeSet<Projection>>> {
    let Some(names) = keys.texts_if("lora_target_modules")? else {
        return Ok(None);
    };
    if names.is_empty() {
        return Err(keys.bad("lora_target_modules", "a list of at least one projection"));
    }
    let parsed = names.iter().map(|name| name.parse::<Projection>());
    let parsed = parsed.collect::<Result<BTreeSet<_>, _>>();
    parsed
        .map(Some)
        .with_context(|| keys.place("lora_target_modules"))
}

fn names(targets: &BTreeSet<Projection>) -> String {
    let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
    format!("[{}]", names.join(", "))
}

#[cfg(test)]
mod tests;
