//! The job file: a fine-tune in YAML, with the key names that other fine-tuning tools use.

mod columns;
mod datasets;
mod evaluation;
pub mod explain;
mod foreign;
mod given;
pub mod help;
mod keys;
mod known;
mod lora;
mod modules;
mod optimizer;
mod rates;
pub mod sample;
pub mod schema;
mod timing;
mod translate;

use std::path::{Path, PathBuf};

use anyhow::bail;
use concord_data::{DatasetSource, Mix};
use concord_kernels::packed::QuantFormat;
use concord_models::config::{DecoderConfig, LoraSpec};
use concord_models::decoder::{Trainable, TrainableTensor};
use concord_models::memory::TrainingRun;
use concord_models::peft::Adapter;
use concord_proto::{
    LossLimit, Optimizer, Order, PrecisionSpec, RateSchedule, Regularization, UpdateRule,
};
use concord_recipe::Expected;
use concord_runtime::spec;

pub use evaluation::{Evaluation, HeldRows};
pub use given::{GivenJob, ReadOptions};
use keys::Keys;
use known::Section;
use lora::LoraKeys;
pub use rates::Rates;
pub use timing::{JobTiming, Steps};

/// The longest sequence.
pub const LEN_MAX: u32 = 1 << 20;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// Low-rank updates of projections.
    Lora,
    /// Every tensor of the model.
    Full,
}

/// What the words of `adapter` mean, and whether the base has 4 bits without another key.
const ADAPTERS: [(AdapterKind, bool); 3] = [
    (AdapterKind::Lora, false),
    (AdapterKind::Lora, true),
    (AdapterKind::Full, false),
];

/// A job file whose every value is in range. Paths are relative to the current directory.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFile {
    /// A model folder, or an id on the Hugging Face hub.
    pub base_model: String,
    /// At least one; a `tokens` file is the only one.
    pub datasets: Vec<DatasetSource>,
    /// How they alternate; `None` where they are joined.
    pub mix: Option<Mix>,
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
    /// The learning rate.
    pub rates: Rates,
    /// What is done with gradients.
    pub rule: UpdateRule,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Whether norms and biases have none.
    pub spares_norms_and_biases: bool,
    /// Global norm that gradients are clipped to; 0 turns clipping off.
    pub max_grad_norm: f32,
    /// The share of the inputs of the adapter that is dropped.
    pub lora_dropout: f32,
    /// NEFTune's alpha.
    pub neftune_noise_alpha: f32,
    /// The share of each target that is spread over the vocabulary.
    pub label_smoothing_factor: f32,
    /// The factor on the squared log-sum-exp of the logits.
    pub z_loss: f32,
    /// The seed of the order of sequences, of a fresh adapter, of dropout and noise.
    pub seed: u64,
    /// Whether sequences come in a new order each round of the data; never for a `tokens` file.
    pub shuffle: bool,
    /// Where the result goes.
    pub output_dir: PathBuf,
    /// Most folders of checkpoints that are kept; 0 is all.
    pub save_total_limit: u32,
    /// Steps between two states that are kept for replay; `None` where the file does not say it.
    pub replay_steps: Option<u32>,
    /// The folder of TensorBoard's event files, if any are written.
    pub tensorboard_dir: Option<PathBuf>,
    /// Bits of the operands of products.
    pub precision: PrecisionSpec,
    /// Whether short examples share a sequence.
    pub sample_packing: bool,
    /// Whether activations are recomputed in the backward pass instead of kept.
    pub recompute: bool,
    /// What is held out, and what follows from the loss on it.
    pub evaluation: Option<Evaluation>,
    /// The loss at which the job fails.
    pub loss_limit: Option<LossLimit>,
    /// Tokens that another tool's file names, and that the tokenizer must have.
    pub expected: Vec<Expected>,
    lora: LoraKeys,
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
        let (adapter, is_qlora) = keys.word("adapter", &ADAPTERS)?;
        let datasets = datasets::read(&keys)?;
        let seed = keys.seed("seed")?;
        let mut job = Self {
            timing: JobTiming::read(&keys, given)?,
            base_model: keys.path("base_model")?,
            load_in: load_in(&keys, adapter, is_qlora)?,
            adapter,
            adapter_is_assumed: !keys.has("adapter"),
            initial_adapter: keys.path_if("initial_adapter")?.map(PathBuf::from),
            sequence_len: keys.whole_or_word("sequence_len")?.unwrap_or(LEN_MAX),
            is_longest: keys.whole_or_word("sequence_len")?.is_none(),
            micro_batch_size: keys.whole("micro_batch_size")?,
            gradient_accumulation_steps: keys.whole("gradient_accumulation_steps")?,
            rates: Rates::read(&keys)?,
            rule: optimizer::rule(&keys)?,
            weight_decay: keys.number("weight_decay")?,
            spares_norms_and_biases: keys.word("weight_decay_exempt", &[false, true])?,
            max_grad_norm: keys.number("max_grad_norm")?,
            lora_dropout: keys.number("lora_dropout")?,
            neftune_noise_alpha: keys.number("neftune_noise_alpha")?,
            label_smoothing_factor: keys.number("label_smoothing_factor")?,
            z_loss: keys.number("z_loss")?,
            seed,
            shuffle: datasets::shuffle(&keys, &datasets)?,
            mix: datasets::mix(&keys, datasets.len())?,
            datasets,
            output_dir: keys.path("output_dir")?.into(),
            save_total_limit: keys.whole("save_total_limit")?,
            replay_steps: keys.whole_if("replay_steps")?,
            tensorboard_dir: tensorboard_dir(&keys)?,
            precision: precision(&keys)?,
            sample_packing: keys.flag("sample_packing")?,
            recompute: keys.flag("recompute")?,
            evaluation: Evaluation::read(&keys, given)?,
            loss_limit: evaluation::loss_limit(&keys)?,
            expected: given.resolved.expected.clone(),
            lora: LoraKeys::read(&keys)?,
        };
        for source in job.all_datasets_mut() {
            source.seed = seed;
        }
        job.check_adapter(&keys)?;
        if keys.has("num_epochs") && job.is_grouped() {
            let because = "on a data set of type `tokens`, which says its steps: give `max_steps`";
            return Err(keys.idle("num_epochs", because));
        }
        Ok(job)
    }

    /// Data sets that are held out as a whole.
    pub fn test_datasets(&self) -> &[DatasetSource] {
        match self.evaluation.as_ref().map(|evaluation| &evaluation.rows) {
            Some(HeldRows::Sets(sets)) => sets,
            _ => &[],
        }
    }

    /// As [`Self::all_datasets`].
    pub fn all_datasets_mut(&mut self) -> impl Iterator<Item = &mut DatasetSource> {
        let rows = self
            .evaluation
            .as_mut()
            .map(|evaluation| &mut evaluation.rows);
        let held: &mut [DatasetSource] = match rows {
            Some(HeldRows::Sets(sets)) => sets,
            _ => &mut [],
        };
        self.datasets.iter_mut().chain(held)
    }

    /// What is learnt, then what is held out as a whole.
    pub fn all_datasets(&self) -> impl Iterator<Item = &DatasetSource> {
        self.datasets.iter().chain(self.test_datasets())
    }

    /// Whether its data say themselves which tokens are a sequence, and of which step.
    pub fn is_grouped(&self) -> bool {
        self.datasets.iter().any(datasets::is_grouped)
    }

    /// Refuses keys of LoRA in a full fine-tune, where they would have no effect.
    fn check_adapter(&self, keys: &Keys) -> anyhow::Result<()> {
        let lora =
            lora::KEYS
                .into_iter()
                .chain(["lora_dropout", "initial_adapter", "loraplus_lr_ratio"]);
        let idle = { lora }.find(|key| keys.has(key));
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
    ) -> anyhow::Result<LoraSpec> {
        self.lora.resolve(initial, model)
    }

    /// The properties on which its memory depends. `lora` is the shape of its adapter, `None` where
    /// every tensor is trained.
    pub fn training_run(&self, lora: Option<&LoraSpec>) -> TrainingRun {
        TrainingRun {
            trainable: match lora {
                None => Trainable::Full,
                Some(lora) => Trainable::Lora(lora.clone()),
            },
            sequence_len: self.sequence_len,
            micro_batch_size: self.micro_batch_size,
            microbatches: self.gradient_accumulation_steps,
            recompute: self.recompute,
            moments: spec::moment_form(&self.rule),
            drops: self.lora_dropout > 0.0,
            smooths: self.label_smoothing_factor > 0.0,
        }
    }

    /// The optimizer, in the form of the job spec.
    pub fn optimizer(&self) -> Optimizer {
        Optimizer {
            rule: self.rule,
            weight_decay: self.weight_decay.into(),
            max_grad_norm: self.max_grad_norm.into(),
        }
    }

    /// Whether a tensor has weight decay. Where nothing decays this is said of none: one job, one
    /// hash.
    pub fn decays(&self, tensor: &TrainableTensor) -> bool {
        let spared = self.spares_norms_and_biases && tensor.is_norm_or_bias();
        !spared || self.weight_decay == 0.0
    }

    /// Dropout, noise and terms of the loss, in the form of the job spec.
    pub fn regularization(&self) -> Regularization {
        let mut regularization = Regularization {
            lora_dropout: self.lora_dropout.into(),
            embedding_noise: self.neftune_noise_alpha.into(),
            label_smoothing: self.label_smoothing_factor.into(),
            z_loss: self.z_loss.into(),
            seed: 0,
        };
        if regularization.draws() {
            regularization.seed = self.seed;
        }
        regularization
    }

    /// The learning rate over the steps, in the form of the job spec.
    pub fn schedule(&self, steps: &Steps) -> RateSchedule {
        self.rates.schedule(steps)
    }

    /// The order of sequences, in the form of the job spec.
    pub fn order(&self) -> Order {
        match self.shuffle {
            true => Order::Shuffled { seed: self.seed },
            false => Order::AsGiven,
        }
    }
}

/// What the base model is quantised to.
fn load_in(
    keys: &Keys,
    adapter: AdapterKind,
    is_qlora: bool,
) -> anyhow::Result<Option<QuantFormat>> {
    let (four, eight) = (keys.flag_if("load_in_4bit")?, keys.flag("load_in_8bit")?);
    if is_qlora && (eight || four == Some(false)) {
        let key = if eight {
            "load_in_8bit"
        } else {
            "load_in_4bit"
        };
        bail!(
            "{}: `{key}` is {eight}, but `adapter: qlora` is LoRA on a base of 4 bits; remove \
             `{key}`, or set `adapter: lora`",
            keys.place(key)
        );
    }
    let four = is_qlora || four == Some(true);
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

/// Where event files go, if any are written.
fn tensorboard_dir(keys: &Keys) -> anyhow::Result<Option<PathBuf>> {
    let dir = keys.path_if("logging_dir")?.map(PathBuf::from);
    match keys.word("report_to", &[false, true])? {
        true => {
            let runs = Path::new(&keys.path("output_dir")?).join("runs");
            Ok(Some(dir.unwrap_or(runs)))
        }
        false if dir.is_some() => Err(keys.idle("logging_dir", "without `report_to: tensorboard`")),
        false => Ok(None),
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

#[cfg(test)]
mod tests;
