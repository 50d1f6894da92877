//! Reads PEFT folders as adapters of a deployment.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use concord_kernels::Tensor;
use concord_models::config::DecoderConfig;
use concord_models::peft::Adapter;
use concord_proto::Digest;
use concord_proto::manifest::ModelTensor;
use concord_proto::serving::AdapterManifest;
use concord_runtime::{spec, tensor_blob};

use crate::support::blobs::BlobSet;

/// Reads a PEFT folder and puts the blobs that stages need into `blobs`. Returns the digest of the
/// adapter.
///
/// # Errors
/// Naming the file, and the option or tensor that does not fit the model.
pub fn adapter_blobs(
    folder: &Path,
    config: &DecoderConfig,
    blobs: &mut BlobSet,
) -> anyhow::Result<Digest> {
    let (manifest, _) = adapter_manifest(folder, config, blobs)?;
    Ok(blobs.value(&manifest))
}

/// Reads a PEFT folder, puts its tensors into `blobs`, and returns its manifest and its tensors.
///
/// # Errors
/// As [`adapter_blobs`].
pub fn adapter_manifest(
    folder: &Path,
    config: &DecoderConfig,
    blobs: &mut BlobSet,
) -> anyhow::Result<(AdapterManifest, BTreeMap<String, Tensor>)> {
    let adapter = Adapter::open(folder, config)?;
    spec::served_lora(&spec::updates(&adapter.lora, config))
        .with_context(|| folder.display().to_string())?;
    let mut tensors = Vec::new();
    for (name, tensor) in &adapter.tensors {
        tensors.push(ModelTensor {
            name: name.clone(),
            bytes: 4 * tensor.len() as u64,
            blob: blobs.bytes(tensor_blob::encode(tensor)?),
        });
    }
    let manifest = AdapterManifest {
        lora: spec::updates(&adapter.lora, config),
        tensors,
    };
    Ok((manifest, adapter.tensors))
}
