//! Turns a job file into a job spec: model, data and initial state by content address.

mod chunks;
mod expected;
mod held_out;
pub mod mixing;
pub mod packing;
mod reading;
mod told;

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concord_data::{DatasetKind, DatasetSource};
use concord_kernels::{Device, MomentKind, Tensor};
use concord_models::decoder::{LoraSpec, TrainableTensor, norms, squared_norms};
use concord_models::memory::TrainingRun;
use concord_models::peft::Adapter;
use concord_models::train::lora_init;
use concord_models::weights::ModelFolder;
use concord_proto::client::ModelProfile;
use concord_proto::manifest::{DataManifest, StateEntry, StateManifest};
use concord_proto::{ARITHMETIC_VERSION, AdapterSpec, Digest, EvaluationSpec, HeldOut, JobSpec};
use concord_runtime::{spec as words, tensor_blob};
use concord_text::TextTokenizer;

use crate::support::blobs::BlobSet;
use crate::support::job_file::{AdapterKind, JobFile, Steps};
use crate::support::load_in;
use crate::support::output::{Output, counted};
use crate::support::profile::{self, KeptFormats};
pub use chunks::parted;
use chunks::{CHUNK_SEQUENCES, Chunks};
use told::Told;

/// A note, because to some tools a file without `adapter` means a full fine-tune.
const ASSUMED: &str = "the job file has no `adapter`, so a LoRA adapter is trained; `adapter: \
                       full` trains every weight";

/// A note, because prompts that go through the model's chat template look unlike the texts that it
/// has learnt.
const NO_TEMPLATE: &str = "the model's chat template is not used: `instruct` learns instruction, \
                           input and output as a line each; ask the tuned model in that form \
                           (`concord generate`, /v1/completions)";

/// A job, ready to be submitted.
pub struct Ingested {
    pub spec: JobSpec,
    /// Tokens of a step, on average over the data.
    pub step_tokens: u64,
    /// Sequences of the data.
    pub sequences: u64,
    /// The profile for the planner.
    pub profile: ModelProfile,
    /// The blobs that the store must have.
    pub blobs: BlobSet,
    /// The model.
    pub folder: ModelFolder,
    /// Its steps, which depend on the data.
    pub steps: Steps,
    /// What it needs on one worker.
    pub run: TrainingRun,
    /// The shape of the adapter; `None` where every tensor is trained.
    pub lora: Option<LoraSpec>,
    /// Notes that are shown before the job starts, above all on the data sets.
    pub told: Vec<Told>,
}

/// Reads model and data of a job file into `blobs`, which is empty. `keeps_packed` says whether
/// workers hold matrices as they lie, as they do on a CPU.
///
/// # Errors
/// Naming file, place and cause of what cannot be used.
pub fn ingest(
    job: &JobFile,
    output: &Output,
    keeps_packed: bool,
    mut blobs: BlobSet,
) -> anyhow::Result<Ingested> {
    let folder = base_model(job)?;
    folder.check_training()?;
    let model = blobs.model(&folder)?;
    let (data, mut told) = data_manifest(job, &folder, &mut blobs, output)?;
    told.extend(assumptions(job, &folder));
    let adapter = initial_adapter(job, &folder)?;
    let lora = match job.adapter {
        AdapterKind::Full => None,
        AdapterKind::Lora => Some(job.lora(adapter.as_ref(), folder.config())?),
    };
    told.extend(adapter_notes(job, &folder, lora.as_ref())?);
    let run = job.training_run(lora.as_ref());
    let steps = settle(job, data.learnt, &mut told)?;
    let tensors = run.trainable.tensors(folder.config());
    let given = adapter.map(|adapter| adapter.tensors);
    let initial_state = initial_state(job, &folder, &tensors, given, &mut blobs)?;
    let spec = JobSpec {
        arithmetic: ARITHMETIC_VERSION,
        model,
        data: data.manifest,
        adapter: match &lora {
            Some(lora) => AdapterSpec::Lora(words::updates(lora, folder.config())),
            None => AdapterSpec::Full,
        },
        initial_state,
        trainable: tensors
            .iter()
            .map(|tensor| proto_tensor(job, tensor, &folder))
            .collect(),
        layers: folder.config().layers as u32,
        order: job.order(),
        micro_batch_size: job.micro_batch_size,
        microbatches: job.gradient_accumulation_steps,
        steps: steps.steps,
        optimizer: job.optimizer(),
        schedule: job.schedule(&steps),
        precision: job.precision,
        loss_limit: job.loss_limit,
        evaluation: evaluation(job, &data, &steps)?,
        regularization: job.regularization(),
    };
    spec.validate()?;
    let kept = match keeps_packed {
        true => KeptFormats::of(&folder)?,
        false => KeptFormats::default(),
    };
    let batch = spec.evaluation.map_or(0, |of| of.micro_batch_size);
    let profile = profile::evaluated(folder.config(), &run, batch, &kept);
    let of_data = u128::from(data.tokens) * u128::from(spec.sequences_per_step());
    Ok(Ingested {
        step_tokens: (of_data / u128::from(data.sequences.max(1))) as u64,
        sequences: data.sequences,
        spec,
        profile,
        blobs,
        folder,
        steps,
        run,
        lora,
        told,
    })
}

/// What the job file leaves open, and how it is taken.
fn assumptions(job: &JobFile, folder: &ModelFolder) -> Vec<Told> {
    let mut told = Vec::new();
    if job.adapter_is_assumed {
        told.push(Told::note(ASSUMED));
    }
    let learns_answers = |source: &DatasetSource| source.kind == DatasetKind::Instruct;
    if job.datasets.iter().any(learns_answers) && !matches!(folder.chat_template(), Ok(None)) {
        told.push(Told::note(NO_TEMPLATE));
    }
    told
}

/// The evaluation of the job, where something is held out.
fn evaluation(
    job: &JobFile,
    data: &JobData,
    steps: &Steps,
) -> anyhow::Result<Option<EvaluationSpec>> {
    let Some(evaluation) = &job.evaluation else {
        return Ok(None);
    };
    let Some(held_out) = data.held_out else {
        bail!("nothing is left of what is held out, so there is nothing to take the loss on");
    };
    let spec = evaluation.spec(held_out, job.micro_batch_size, &job.timing, steps);
    Ok(Some(spec))
}

/// The model that is tuned.
fn base_model(job: &JobFile) -> anyhow::Result<ModelFolder> {
    let path = crate::support::loaded_model::resolve(&job.base_model).context("base_model")?;
    if let Some(base) =
        crate::support::loaded_model::base_of_adapter(&path).context("base_model")?
    {
        bail!(
            "base_model: {} is an adapter for {base}: give that as base_model, and this folder as \
             initial_adapter to train it on",
            path.display()
        );
    }
    Ok(load_in::open(&path, job.load_in)?)
}

/// The steps of the job on so many sequences, which are told where they come from epochs.
fn settle(job: &JobFile, sequences: u64, told: &mut Vec<Told>) -> anyhow::Result<Steps> {
    let (batch, accumulation) = (job.micro_batch_size, job.gradient_accumulation_steps);
    let steps = job.timing.settle(sequences, batch, accumulation)?;
    if steps.warmup > steps.steps {
        told.push(Told::note(&format!(
            "{} of warm-up, but the job has {}: the peak of the learning rate is not reached",
            counted(steps.warmup.into(), "step"),
            counted(steps.steps.into(), "step")
        )));
    }
    if let Some(epochs) = job.timing.epochs() {
        let warmup = counted(steps.warmup.into(), "step");
        told.push(Told::note(&format!(
            "{}: {epochs} passes over {}, {} a step; {warmup} of warm-up",
            counted(steps.steps.into(), "step"),
            counted(sequences, "sequence"),
            u64::from(batch) * u64::from(accumulation)
        )));
    }
    Ok(steps)
}

/// The data of a job.
struct JobData {
    /// The address of the manifest.
    manifest: Digest,
    sequences: u64,
    /// Sequences that are not held out.
    learnt: u64,
    held_out: Option<HeldOut>,
    /// Tokens of all sequences.
    tokens: u64,
}

fn data_manifest(
    job: &JobFile,
    folder: &ModelFolder,
    blobs: &mut BlobSet,
    output: &Output,
) -> anyhow::Result<(JobData, Vec<Told>)> {
    let needs_tokenizer = |source: &DatasetSource| source.kind != DatasetKind::Tokens;
    let tokenizer = match job.all_datasets().any(needs_tokenizer) {
        true => Some(folder.tokenizer()?),
        false => None,
    };
    if let Some(tokenizer) = &tokenizer {
        tokenizer.check(folder.config().vocab)?;
        expected::check(job, tokenizer, folder.config().vocab)?;
    }
    if job.sample_packing && job.is_grouped() {
        bail!(
            "sample_packing: a file of tokens says itself which tokens are a sequence; \
             set `sample_packing: false`"
        );
    }
    let mut chunks = Chunks::new(blobs, job.sample_packing, job.mix.is_some());
    let mut told = reading::sequences(job, folder, tokenizer.as_ref(), &mut chunks, output)?;
    let notes = tokenizer.iter().flat_map(TextTokenizer::notes);
    told.extend(notes.map(|note| Told::note(note)));
    let drawn = held_out::count(job, chunks.examples() as u64)?;
    let written = chunks.finish(job.sequence_len as usize, drawn, job.seed);
    told.extend(written.told);
    let entries = written.entries;
    if entries.iter().all(|entry| entry.targets == 0) {
        bail!("datasets: nothing to learn from: no sequence has a token to predict");
    }
    let count = entries.len() as u64;
    if let Some(held) = written.held_out {
        told.push(held_out::told(held, entries.len()));
    }
    let held = written.held_out.map_or(0, HeldOut::sequences);
    let tokens = entries.iter().map(|entry| u64::from(entry.tokens)).sum();
    let manifest = DataManifest {
        sequence_len: job.sequence_len,
        chunk_sequences: CHUNK_SEQUENCES,
        chunks: written.chunks,
        sequences: entries,
    };
    let data = JobData {
        manifest: blobs.value(&manifest),
        sequences: count,
        learnt: count - u64::from(held),
        held_out: written.held_out,
        tokens,
    };
    Ok((data, told))
}

fn proto_tensor(
    job: &JobFile,
    tensor: &TrainableTensor,
    folder: &ModelFolder,
) -> concord_proto::TrainedTensor {
    concord_proto::TrainedTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
        place: words::place(tensor.place, folder.config().tie_embeddings),
        decays: job.decays(tensor),
    }
}

/// The initial state: values from the initial adapter, the model or the seed; moments of zero.
fn initial_state(
    job: &JobFile,
    folder: &ModelFolder,
    tensors: &[TrainableTensor],
    given: Option<BTreeMap<String, Tensor>>,
    blobs: &mut BlobSet,
) -> anyhow::Result<Digest> {
    let mut entries = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let value = match (&given, job.adapter) {
            (None, AdapterKind::Full) => blobs.first_value(folder, &tensor.name)?,
            (None, AdapterKind::Lora) if Adapter::saved_name(&tensor.name).is_some() => {
                let name = Adapter::saved_name(&tensor.name).unwrap_or(&tensor.name);
                blobs.first_value(folder, name)?
            }
            (given, _) => {
                let mut value = match given {
                    Some(given) => given[&tensor.name].clone(),
                    None => first_value(folder, tensor, index, job.seed)?,
                };
                Device::Reference.canonicalise(&mut [(&tensor.name, &mut value)])?;
                blobs.bytes(tensor_blob::encode(&value)?)
            }
        };
        let form = words::moment_form(&job.rule);
        let mut zeros = |kind| blobs.zero_moment(form, kind, &tensor.shape);
        entries.push(StateEntry {
            value,
            first_moment: zeros(MomentKind::First)?,
            second_moment: zeros(MomentKind::Second)?,
        });
    }
    Ok(blobs.value(&StateManifest { step: 0, entries }))
}

/// The value of a tensor of a fresh adapter: magnitudes leave the matrix as it is.
fn first_value(
    folder: &ModelFolder,
    tensor: &TrainableTensor,
    index: usize,
    seed: u64,
) -> anyhow::Result<Tensor> {
    match Adapter::magnitude_module(&tensor.name) {
        None => Ok(lora_init(tensor, index, seed)),
        Some(module) => {
            let squares = squared_norms(folder, &format!("{module}.weight"))?;
            Ok(norms(&squares))
        }
    }
}

/// What is to be known of the adapter that the training starts from, and of the one it makes.
fn adapter_notes(
    job: &JobFile,
    folder: &ModelFolder,
    lora: Option<&LoraSpec>,
) -> anyhow::Result<Vec<Told>> {
    let base = match &job.initial_adapter {
        Some(path) => Adapter::base_note(path, folder.dir())?,
        None => None,
    };
    let targets: Vec<_> = lora
        .iter()
        .flat_map(|lora| lora.targets.iter().copied())
        .collect();
    let peft = Adapter::peft_note(folder.config(), &targets);
    Ok(base
        .iter()
        .chain(&peft)
        .map(|note| Told::note(note))
        .collect())
}

fn initial_adapter(job: &JobFile, folder: &ModelFolder) -> anyhow::Result<Option<Adapter>> {
    let Some(path) = &job.initial_adapter else {
        return Ok(None);
    };
    let adapter = Adapter::open(path, folder.config());
    adapter
        .map(Some)
        .with_context(|| format!("initial_adapter: {}", path.display()))
}
