//! `concord plan`: how much memory a model needs, stage by stage, and what fits where. No weights
//! are read.

mod fit;
mod model;
mod proposal;
mod remedies;
mod serving;
mod training;

use std::path::PathBuf;

use anyhow::{Context, bail};
use concord_models::config::LoraSpec;
use concord_models::memory::TrainingRun;
use concord_models::peft::Adapter;
use serde_json::Value;

use crate::support::bytes;
use crate::support::job_data;
use crate::support::job_file::{AdapterKind, JobFile, ReadOptions};
use crate::support::kv_cache::KvCacheArgs;
use crate::support::output::Output;
use model::PlannedModel;

/// The default tokens of a sequence, if the model has so many positions.
const SEQUENCE_LEN: u32 = 2_048;

/// The default rank of the adapter, which is that of a job file without `lora_r`.
const LORA_R: u32 = 8;

/// A part of the output, as text and as JSON.
type PlanPart = (String, Value);

/// Options of `concord plan`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord plan models/llama                          # serving, and a LoRA fine-tune
  concord plan models/llama --workers 24G,8G,8G      # what fits on three workers
  concord plan --job job.yaml --workers 10G,10G      # a fine-tune as `concord train` runs it
  concord plan owner/name --sequence-length 512      # of the hub: config.json alone is fetched

A size is what a process that computes on a CPU takes at its peak. In it are the weights that stay
as they are in a file (GGUF blocks, 16 bits): their pages are shared by all processes of a machine,
and the operating system takes them back where memory is short. A GPU holds 2 bytes a weight of
these; a pool of other machines, which may have GPUs, is planned with that. A checker takes at most
what the largest stage takes without its trained state.")]
pub struct PlanArgs {
    /// A model folder, a GGUF file, or owner/name of the Hugging Face hub. By default the
    /// base_model of --job.
    #[arg(required_unless_present = "job", value_name = "DIR_OR_HUB_ID")]
    model: Option<String>,
    /// Plan this fine-tune, by the keys that `concord train` reads. No data set is opened.
    #[arg(long, value_name = "FILE", conflicts_with = "kv_cache_dtype")]
    job: Option<PathBuf>,
    #[command(flatten)]
    kv_cache: KvCacheArgs,
    #[command(flatten)]
    asked: ReadOptions,
    /// Memory of each worker, such as 24G,8G,8G: what fits where, by the planner's own rules.
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = bytes::parse)]
    workers: Vec<u64>,
    /// Tokens of a training sequence; 2,048 by default, or what the job says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    sequence_length: Option<u32>,
    /// Sequences of a microbatch; 1 by default, or what the job says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Option<u32>,
}

/// Prints how much memory the model needs.
///
/// # Errors
/// Naming what is wrong with the model or the job file; or, where the given workers have too little
/// memory, what would help.
pub fn run(args: &PlanArgs, output: &Output) -> anyhow::Result<()> {
    let read = |path: &std::path::Path| JobFile::read(path, &args.asked);
    let mut job = args.job.as_deref().map(read).transpose()?;
    if let Some(job) = job.as_mut().filter(|job| job.is_longest) {
        job_data::prepare(job)?;
    }
    let named = job.as_ref().map(|job| job.base_model.clone());
    let Some(name) = args.model.clone().or(named) else {
        bail!("give a model, or a job with --job");
    };
    let model = PlannedModel::open(&name, job.as_ref().and_then(|job| job.load_in))?;
    let run = args.training_run(job.as_ref(), &model)?;
    let mut parts = vec![model.part()];
    if job.is_none() {
        parts.extend(serving::parts(&model, &args.workers, args.kv_cache)?);
    }
    parts.extend(training::parts(&model, &run, &args.workers, job.is_some())?);
    for (text, object) in parts {
        output.result(&text, &object);
    }
    Ok(())
}

impl PlanArgs {
    /// The fine-tune of the job; else a LoRA fine-tune.
    fn training_run(
        &self,
        job: Option<&JobFile>,
        model: &PlannedModel,
    ) -> anyhow::Result<TrainingRun> {
        let most = u32::try_from(model.config.max_positions).unwrap_or(u32::MAX);
        let mut run = match job {
            None => TrainingRun::lora(LORA_R, SEQUENCE_LEN.min(most)),
            Some(job) => job.training_run(lora(job, model)?.as_ref()),
        };
        if let Some(tokens) = self.sequence_length {
            run.sequence_len = tokens;
        }
        if let Some(sequences) = self.batch {
            run.micro_batch_size = sequences;
        }
        Ok(run)
    }
}

/// The shape of the job's adapter; `None` where every tensor is trained.
fn lora(job: &JobFile, model: &PlannedModel) -> anyhow::Result<Option<LoraSpec>> {
    if job.adapter == AdapterKind::Full {
        return Ok(None);
    }
    let initial = job.initial_adapter.as_deref();
    let initial = initial.map(|path| Adapter::open(path, &model.config));
    let initial = initial.transpose().context("initial_adapter")?;
    job.lora(initial.as_ref(), &model.config).map(Some)
}
