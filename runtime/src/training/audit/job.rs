//! A job whose leaves are audited: what is the same for all of them, read once.

use std::sync::Arc;

use concord_kernels::Device;
use concord_models::config::DecoderConfig;
use concord_models::decoder::WeightBytes;
use concord_proto::manifest::{DataManifest, ModelManifest};
use concord_proto::{AdapterSpec, Digest, JobSpec, Layers};

use crate::blobs::Blobs;
use crate::model_blobs::ModelBlobs;
use crate::training::assignment::{fetch_base, fetch_config};
use crate::training::data::DataSource;
use crate::training::leaf_work;
use crate::{RuntimeError, spec};

/// What all leaves of a job share.
pub(crate) struct AuditedJob {
    /// The blob address of its spec.
    pub(crate) address: Digest,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) config: Arc<DecoderConfig>,
    manifest: ModelManifest,
    pub(crate) data: DataSource,
}

impl AuditedJob {
    /// Fetches a job by the address of its spec. Blobs of others are deleted beyond the bound.
    ///
    /// # Errors
    /// [`RuntimeError`] where it is unavailable or cannot be computed here.
    pub(crate) async fn fetch(blobs: &Blobs, address: Digest) -> Result<Self, RuntimeError> {
        let spec: JobSpec = blobs.get_value(address, "job spec").await?;
        let (config, manifest) = fetch_config(blobs, &spec).await?;
        let data: DataManifest = blobs.get_value(spec.data, "data manifest").await?;
        let data = DataSource::new(&spec, Arc::new(data), &config)?;
        let tensors = manifest.tensors.iter().map(|tensor| tensor.blob);
        let needed = [address, spec.model, spec.data].into_iter().chain(tensors);
        blobs.trim(needed.chain(data.chunks()).collect()).await;
        Ok(Self {
            address,
            spec: Arc::new(spec),
            config,
            manifest,
            data,
        })
    }

    /// Fetches the tensors of `layers` that are not trained, to disk.
    ///
    /// # Errors
    /// [`RuntimeError`] where one is unavailable.
    pub(crate) async fn base(
        &self,
        blobs: &Blobs,
        layers: Layers,
    ) -> Result<ModelBlobs, RuntimeError> {
        fetch_base(blobs, &self.spec, &self.config, &self.manifest, layers).await
    }
}

/// Bytes of the weights of a stage that stays in the cache between two leaves; none where all that
/// it holds is trained.
pub(crate) fn cached_bytes(
    spec: &JobSpec,
    config: &DecoderConfig,
    layers: Layers,
    positions: usize,
    (base, device): (&ModelBlobs, &Device),
) -> Option<u64> {
    if spec.adapter == AdapterSpec::Full {
        return None;
    }
    let span = spec::span(layers);
    let weights = WeightBytes::loaded(config, span, positions as u64, base, device);
    let held = leaf_work::held_names(spec, layers).into_iter();
    let factor = |(index, _): (u32, String)| {
        let shape = &spec.trainable[index as usize].shape;
        2 * shape.iter().product::<u64>()
    };
    Some(weights + held.map(factor).sum::<u64>())
}
