//! Writes the result of a job: an adapter or weights in Hugging Face format, and the proof. All
//! files are written and checked in a staging folder, and then moved into place.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_data::DatasetSource;
use concord_kernels::Tensor;
use concord_models::peft::Adapter;
use concord_models::{export, hub};
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::StateManifest;
use concord_proto::{Digest, JobId, JobSpec, canonical};
use concord_runtime::{blobs, tensor_blob};
use concord_verify::training::bundle::{self, Bundle};
use serde_json::{Value, json};

use super::completed::in_words;
use super::output_dir::{OutputDir, files, remove_folder, sync};
use super::replay_states::ReplayStates;
use super::{forget_state, tell_failure};
use crate::support::client::Client;
use crate::support::ingest::Ingested;
use crate::support::job_file::JobFile;
use crate::support::model_card;
use crate::support::output::Output;
use crate::support::result_names::{PROOF, STATES};
use crate::support::result_weights;

/// The file of a chat template, which comes before one in `tokenizer_config.json`.
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Files that make a folder a model or an adapter. They are moved last.
const LAST: [&str; 2] = ["config.json", "adapter_config.json"];

/// A job whose result is to be written.
pub struct FinishedJob<'a> {
    pub id: JobId,
    pub job: &'a JobFile,
    pub ingested: &'a Ingested,
    /// Blob address of the state that comes out.
    pub state: Digest,
    /// The states that were kept for replay.
    pub replay: &'a ReplayStates,
}

/// Fetches the last state and the proof of a finished job, checks both, and puts them into the
/// output folder. Returns the folder of the proof.
///
/// # Errors
/// Where a blob is missing, a check fails, or the disk is full. The job stays done, and the same
/// command writes its result.
pub async fn write(
    client: &Client,
    finished: &FinishedJob<'_>,
    output_dir: &mut OutputDir,
) -> anyhow::Result<PathBuf> {
    let staging = output_dir.staging_dir();
    let mut kept = Vec::new();
    let written = write_to(&staging, client, finished).await;
    let written = written.and_then(|(bundle, updates)| {
        kept = updates;
        let card = model_card::of_job(finished.job, output_dir.settings(), &bundle);
        let path = staging.join(model_card::FILE);
        std::fs::write(&path, card).with_context(|| format!("cannot write {}", path.display()))
    });
    let placed = match written {
        Ok(()) => place(&staging, output_dir),
        Err(error) => Err(error),
    };
    let place = output_dir.dir().display();
    placed.map_err(|error| {
        let is_full = error.chain().any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == ErrorKind::StorageFull)
        });
        let remedy = if is_full {
            "make room on its disk"
        } else {
            "mend that"
        };
        error.context(format!(
            "the training is done and kept, but its result could not be written to {place}: \
             {remedy}, and the same command writes it without training again"
        ))
    })?;
    // Otherwise they take room there, and do no other harm.
    tell_failure(finished.replay.release(client, finished.id, &kept).await);
    Ok(output_dir.dir().join(PROOF))
}

/// Checks that the result of a finished job is unchanged, and prints it again.
///
/// # Errors
/// Where files have changed since.
pub fn tell_again(output_dir: &OutputDir, told: &Value, output: &Output) -> anyhow::Result<()> {
    let dir = output_dir.dir();
    check(dir).with_context(|| {
        format!(
            "output_dir: {} had the result of this job, and has changed since: give --overwrite to \
             do the job again, or choose another output_dir",
            dir.display()
        )
    })?;
    forget_state(output_dir);
    let mut told = told.clone();
    told["already_done"] = json!(true);
    let text = format!(
        "this job was done before; its result is unchanged\n{}",
        in_words(&told)
    );
    output.result(&text, &told);
    Ok(())
}

/// Checks that a folder has a valid proof, and the weights with which it ends.
fn check(dir: &Path) -> anyhow::Result<()> {
    let bundle = Bundle::read_dir(&dir.join(PROOF))?;
    bundle::verify(&bundle).context("the proof does not hold")?;
    result_weights::check(&bundle, dir)?;
    Ok(())
}

/// Returns the proof, and the updates after which it has a state for replay.
async fn write_to(
    staging: &Path,
    client: &Client,
    finished: &FinishedJob<'_>,
) -> anyhow::Result<(Bundle, Vec<u32>)> {
    let (job, ingested) = (finished.job, finished.ingested);
    let tensors = fetch_values(client, &ingested.spec, finished.state).await?;
    let bundle = fetch_bundle(client, finished.id).await?;
    // An interrupted earlier run may have left it.
    remove_folder(staging)?;
    std::fs::create_dir(staging).with_context(|| format!("cannot make {}", staging.display()))?;
    save_weights(staging, job, ingested, tensors)?;
    bundle.write_dir(&staging.join(PROOF))?;
    check(staging)?;
    let kept = finished.replay.put(client, &bundle, staging).await?;
    Ok((bundle, kept))
}

/// Writes trained tensors into a folder, as an adapter or as the weights of a model.
///
/// # Errors
/// Where the disk is full.
pub(super) fn save_weights(
    folder: &Path,
    job: &JobFile,
    ingested: &Ingested,
    tensors: BTreeMap<String, Tensor>,
) -> anyhow::Result<()> {
    match &ingested.lora {
        Some(lora) => {
            let adapter = Adapter {
                lora: lora.clone(),
                tensors,
            };
            let base = base_model_name(&job.base_model)?;
            let of = (ingested.folder.config(), &*base);
            adapter.save_with_dropout(folder, of, job.lora_dropout)?;
            // A tokenizer is then read from the folder of the adapter, as other tools write it.
            export::save_companions(folder, &ingested.folder)?;
        }
        None => {
            let dtype = Some(export::ExportDtype::F32);
            export::save_model(folder, &ingested.folder, &tensors, dtype)?;
        }
    }
    if let Some(template) = own_template(job) {
        let path = folder.join(CHAT_TEMPLATE);
        export::replace_file(&path, |out| out.write_all(template.as_bytes()))?;
    }
    Ok(())
}

/// The chat template of a job that is not that of its model, where all its conversations have it.
fn own_template(job: &JobFile) -> Option<&str> {
    let has_turns = |source: &&DatasetSource| source.kind.has_turns();
    let templates = job.datasets.iter().filter(has_turns);
    let mut templates = templates.map(|source| source.chat_template.as_deref());
    let first = templates.next()??;
    templates.all(|other| other == Some(first)).then_some(first)
}

/// Fetches the tensors of a state by its blob address.
///
/// # Errors
/// Where a blob is missing, or is not what the job trains.
pub(super) async fn fetch_values(
    client: &Client,
    spec: &JobSpec,
    state: Digest,
) -> anyhow::Result<BTreeMap<String, Tensor>> {
    let bytes = blobs::fetch_from_coordinator(client.channel(), state).await?;
    let manifest: StateManifest = canonical::decode(&bytes)?;
    if manifest.entries.len() != spec.trainable.len() {
        bail!("the last state has another number of tensors than the job");
    }
    let mut values = BTreeMap::new();
    for (tensor, entry) in spec.trainable.iter().zip(manifest.entries) {
        let bytes = blobs::fetch_from_coordinator(client.channel(), entry.value).await?;
        let elements = tensor.shape.iter().product();
        let value = tensor_blob::decode_stored(&bytes, elements).map_err(anyhow::Error::msg)?;
        values.insert(tensor.name.clone(), value);
    }
    Ok(values)
}

async fn fetch_bundle(client: &Client, job: JobId) -> anyhow::Result<Bundle> {
    let ClientResponse::Bundle(digest) = client.call(&ClientRequest::Bundle(job)).await? else {
        bail!("the coordinator does not give the proof");
    };
    let blob = blobs::fetch_from_coordinator(client.channel(), digest).await?;
    Ok(Bundle::from_files(&bundle::from_blob(&blob)?)?)
}

/// Moves the files of a complete result into the output folder, each by a rename, those that make
/// the folder a model or an adapter last. If this is interrupted, the same command repeats it.
fn place(staging: &Path, output_dir: &mut OutputDir) -> anyhow::Result<()> {
    let mut files = files(staging)?;
    files.sort_by_key(|file| LAST.contains(&file.as_str()));
    let dir = output_dir.dir().to_path_buf();
    for file in &files {
        // A file that was created by others while the job ran must not be overwritten.
        if !output_dir.has_file(file) && dir.join(file).exists() {
            bail!(
                "{} is there, and is none of the job's: move it away",
                dir.join(file).display()
            );
        }
    }
    output_dir.note_files(&files)?;
    sync(staging)?;
    for file in &files {
        let (from, to) = (staging.join(file), dir.join(file));
        let renamed = || {
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::rename(&from, &to)
        };
        renamed().with_context(|| format!("cannot put {} into its place", to.display()))?;
    }
    let states = dir.join(PROOF).join(STATES);
    if states.is_dir() {
        sync(&states)?;
    }
    sync(&dir.join(PROOF))?;
    sync(&dir)
}

/// The name of the base model in an adapter's files. For a folder it is the absolute path, because
/// the adapter may be read from anywhere, and a relative path would be taken for a name of the hub.
fn base_model_name(base_model: &str) -> anyhow::Result<String> {
    if !hub::is_here(base_model) {
        return Ok(base_model.to_string());
    }
    let whole = std::path::absolute(base_model).context("cannot tell the current folder")?;
    Ok(whole.to_string_lossy().into_owned())
}
