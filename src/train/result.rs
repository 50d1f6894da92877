//! The result of a job: adapter or weights as Hugging Face users know them, and the proof.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_kernels::Tensor;
use concord_models::export;
use concord_models::peft::Adapter;
use concord_proto::bundle::{self, Bundle};
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::StateManifest;
use concord_proto::{Digest, JobId, JobSpec, canonical};
use concord_runtime::{blobs, tensor_blob};

use super::ingest::Ingested;
use crate::client::Client;
use crate::job_file::JobFile;

/// Fetches the last state and writes it to `output_dir`.
///
/// # Errors
/// Where a blob is missing or the folder cannot be written.
pub async fn write_weights(
    client: &Client,
    job: &JobFile,
    ingested: &Ingested,
    state: Digest,
) -> anyhow::Result<()> {
    let tensors = fetch_values(client, &ingested.spec, state).await?;
    let output = &job.output_dir;
    std::fs::create_dir_all(output)
        .with_context(|| format!("output_dir: cannot make {}", output.display()))?;
    match &ingested.lora {
        Some(lora) => {
            let adapter = Adapter {
                r: lora.r,
                alpha: lora.alpha,
                targets: lora.targets.iter().copied().collect(),
                tensors,
            };
            adapter.save(output, &job.base_model)?;
        }
        None => {
            let dtype = Some(export::ExportDtype::F32);
            export::save_model(output, &ingested.folder, &tensors, dtype)?;
        }
    }
    Ok(())
}

async fn fetch_values(
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
        let value = tensor_blob::decode(&bytes).map_err(anyhow::Error::msg)?;
        values.insert(tensor.name.clone(), value);
    }
    Ok(values)
}

/// Fetches the proof, checks it, and writes it beside the weights.
///
/// # Errors
/// Where it does not hold or cannot be written.
pub async fn write_bundle(client: &Client, job: JobId, dir: &Path) -> anyhow::Result<PathBuf> {
    let ClientResponse::Bundle(digest) = client.call(&ClientRequest::Bundle(job)).await? else {
        bail!("the coordinator does not give the proof");
    };
    let blob = blobs::fetch_from_coordinator(client.channel(), digest).await?;
    let files = bundle::from_blob(&blob)?;
    let bundle = Bundle::from_files(&files)?;
    bundle::verify(&bundle).context("the proof does not hold")?;
    let path = dir.join("proof");
    bundle.write_dir(&path)?;
    Ok(path)
}
