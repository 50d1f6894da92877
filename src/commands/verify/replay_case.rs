//! What a replay computes from: the base model and the data that a job file names, compared with
//! those of the proof before anything is computed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use concord_kernels::Device;
use concord_proto::{AdapterSpec, Digest, JobSpec};
use concord_runtime::RuntimeError;
use concord_runtime::training::replay::{ChunkReader, ReplayCase};
use concord_verify::training::bundle::Bundle;
use serde_json::Value;

use super::VerifyArgs;
use crate::support::blobs::BlobSet;
use crate::support::ingest::{self, Ingested};
use crate::support::job_data;
use crate::support::job_file::{GivenJob, JobFile};
use crate::support::output::Output;
use crate::support::result_names::LOG_FILE;

/// Chunks of the data that stay in memory.
const RECENT: usize = 8;

/// Model and data of a job, and where to compute.
pub struct Case {
    ingested: Ingested,
    device: Device,
}

impl Case {
    /// Reads the job file, and the model and the data that it names.
    ///
    /// # Errors
    /// Where they cannot be read, or are not those of the proof.
    pub fn open(
        args: &VerifyArgs,
        path: &Path,
        bundle: &Bundle,
        output: &Output,
    ) -> anyhow::Result<Self> {
        let device = args.device.device(None)?;
        let given = GivenJob::read(path, &args.asked)?;
        let mut job = JobFile::of(&given)?;
        if let Some(base) = args.base(bundle) {
            job.base_model = base.to_string_lossy().into_owned();
        }
        let ingested = job_data::prepare(&mut job)
            // What is compared with a proof is hashed.
            .and_then(|()| ingest::ingest(&job, output, true, BlobSet::default()))
            .map_err(|error| given.in_its_words(error))
            .with_context(|| needs(bundle))?;
        if let Some(differs) = differs(&ingested.spec, &bundle.spec) {
            bail!("{} is not the job of the proof: {differs}", path.display());
        }
        Ok(Self { ingested, device })
    }

    /// A part of the state before the first step.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn first(&self, address: Digest) -> Result<Vec<u8>, String> {
        let ingested = &self.ingested;
        let bytes = ingested.blobs.blob(&address, &ingested.folder);
        bytes.map_err(|error| format!("{error:#}"))
    }

    /// The chunks of the data.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            case: self,
            recent: VecDeque::new(),
        }
    }

    /// What steps are computed from.
    pub fn replay<'a>(
        &'a self,
        bundle: &'a Bundle,
        chunk: &'a mut ChunkReader<'a>,
    ) -> ReplayCase<'a> {
        let folder = &self.ingested.folder;
        ReplayCase {
            device: &self.device,
            spec: &bundle.spec,
            config: Arc::new(folder.config().clone()),
            base: folder,
            data: bundle.data.clone(),
            chunk,
        }
    }
}

/// Chunks as they are read, the last of them in memory.
pub struct Chunks<'a> {
    case: &'a Case,
    recent: VecDeque<(Digest, Arc<Vec<u8>>)>,
}

impl Chunks<'_> {
    /// A chunk by its address.
    ///
    /// # Errors
    /// [`RuntimeError::BadBlob`] where it cannot be read.
    pub fn get(&mut self, address: Digest) -> Result<Arc<Vec<u8>>, RuntimeError> {
        if let Some((_, bytes)) = self.recent.iter().find(|(found, _)| *found == address) {
            return Ok(bytes.clone());
        }
        let bytes = self
            .case
            .first(address)
            .map_err(|why| RuntimeError::BadBlob {
                digest: address,
                what: "data chunk",
                why,
            })?;
        let bytes = Arc::new(bytes);
        self.recent.push_back((address, bytes.clone()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        Ok(bytes)
    }
}

impl VerifyArgs {
    /// The folder of `--model`, where it is that of the result.
    pub fn checked_result(&self, bundle: &Bundle) -> Option<&Path> {
        let is_base = self.base(bundle).is_some();
        self.model.as_deref().filter(|_| !is_base)
    }

    /// The folder of `--model`, where it is that of the base model.
    fn base(&self, bundle: &Bundle) -> Option<&Path> {
        let folder = self.model.as_deref().filter(|_| self.replay.is_some())?;
        let is_base = match &bundle.spec.adapter {
            AdapterSpec::Lora(_) => !folder.join("adapter_config.json").exists(),
            // A full fine-tune looks like its base model: it must not pass for one.
            AdapterSpec::Full => false,
        };
        is_base.then_some(folder)
    }
}

/// What a replay needs, for an error.
pub fn needs(bundle: &Bundle) -> String {
    format!(
        "a replay needs the base model ({}) and the data ({}, {} sequences) of the job, which are \
         not in its proof: the job file names them, and --set changes a path in it, such as --set \
         datasets.0.path=FILE",
        bundle.spec.model.short(),
        bundle.spec.data.short(),
        bundle.data.sequences.len()
    )
}

/// The first thing in which the job of a file differs from that of a proof, in words.
fn differs(file: &JobSpec, proof: &JobSpec) -> Option<String> {
    let addresses = |what: &str, file: Digest, proof: Digest| {
        let (file, proof) = (file.short(), proof.short());
        format!("{what} ({file}, and that of the proof is {proof})")
    };
    let settings = |what: &str| format!("its {what}");
    let fields = [
        (
            file.model != proof.model,
            addresses("its base model is another one", file.model, proof.model),
        ),
        (
            file.data != proof.data,
            addresses(
                "its data are others, or become other tokens",
                file.data,
                proof.data,
            ),
        ),
        (
            file.adapter != proof.adapter || file.trainable != proof.trainable,
            settings("adapter, or what is trained of the model, is another one"),
        ),
        (
            file.initial_state != proof.initial_state,
            addresses(
                "its first state is another one: `seed`, or `initial_adapter`",
                file.initial_state,
                proof.initial_state,
            ),
        ),
        (
            file.order != proof.order,
            settings("order of the data is another one: `seed`, `shuffle`"),
        ),
        (
            (file.steps, file.microbatches, file.micro_batch_size)
                != (proof.steps, proof.microbatches, proof.micro_batch_size),
            settings("steps or batches are others"),
        ),
        (
            (file.optimizer, file.schedule) != (proof.optimizer, proof.schedule),
            settings("optimizer or learning rate is another one"),
        ),
        (
            file.evaluation != proof.evaluation,
            settings("evaluation is another one"),
        ),
        (
            file != proof,
            settings("precision, regularization or limits are others"),
        ),
    ];
    let mut fields = fields.into_iter();
    fields.find_map(|(differs, words)| differs.then_some(words))
}

/// Seconds of all steps of the job, by the log beside the proof.
pub fn job_seconds(proof: &Path) -> Option<f64> {
    let log = std::fs::read_to_string(proof.parent()?.join(LOG_FILE)).ok()?;
    let lines = log.lines();
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let micros = lines.filter_map(|line| line["micros"].as_u64());
    let micros: u64 = micros.sum();
    (micros > 0).then_some(micros as f64 / 1e6)
}
