//! Stages for serving: their tensors by digest, and what is loaded already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_kernels::{Device, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::{
    LoraSpec, Precisions, Stage, StageAdapter, StageOptions, TensorSource, WeightBytes,
};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::serving::{AdapterManifest, Deployment, DeploymentId};
use concord_proto::{ARITHMETIC_VERSION, Digest, Layers};

use crate::blobs::Blobs;
use crate::faults::Faults;
use crate::model_blobs::ModelBlobs;
use crate::{RuntimeError, spec, tensor_blob};

/// A stage that is loaded.
pub(crate) struct ServedStage {
    pub(crate) stage: Stage,
    /// Bytes that it takes, as estimated.
    pub(crate) bytes: u64,
}

/// The layers of a deployment.
type Key = (DeploymentId, Layers);

/// The stages that are loaded, whether in use or not. It outlives sessions.
#[derive(Clone, Default)]
pub(crate) struct ServedStages {
    stages: Arc<Mutex<BTreeMap<Key, Arc<ServedStage>>>>,
    /// Held while a stage is loaded: two at a time would not know of each other's memory.
    loading: Arc<tokio::sync::Mutex<()>>,
}

impl ServedStages {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<ServedStage>>> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all but these layers of a deployment.
    pub(crate) fn keep(&self, deployment: DeploymentId, layers: &[Layers]) {
        let kept = |(id, held): &Key| *id == deployment && layers.contains(held);
        self.lock().retain(|key, _| kept(key));
    }

    /// Bytes that the stages take.
    fn bytes(&self) -> u64 {
        self.lock().values().map(|loaded| loaded.bytes).sum()
    }
}

/// Loads stages and adapters.
#[derive(Clone)]
pub(crate) struct StageLoader {
    pub(crate) blobs: Blobs,
    pub(crate) device: Device,
    /// Memory that the worker may use, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) loaded: ServedStages,
    pub(crate) faults: Faults,
}

impl StageLoader {
    /// The configuration and the manifest of the model of a deployment.
    ///
    /// # Errors
    /// [`RuntimeError`] where it is unavailable, or is not what the deployment says.
    pub(crate) async fn model(
        &self,
        deployment: &Deployment,
    ) -> Result<(Arc<DecoderConfig>, ModelManifest), RuntimeError> {
        fetch_model(&self.blobs, deployment).await
    }

    /// The stage of these layers, loaded if it is not yet. Loading that has begun goes on to its
    /// end, even where nobody waits any more: the next plan is likely to want it.
    ///
    /// # Errors
    /// [`RuntimeError::NoRoom`] where memory does not hold it beside the others and `reserved`
    /// bytes; [`RuntimeError`] where tensors are unavailable, or a GPU fails.
    pub(crate) async fn stage(
        &self,
        deployment: &Deployment,
        layers: Layers,
        reserved: u64,
    ) -> Result<Arc<ServedStage>, RuntimeError> {
        let loading = self.clone().load(deployment.clone(), layers, reserved);
        let loaded = tokio::spawn(loading).await;
        loaded.map_err(|error| RuntimeError::Unsupported(error.to_string()))?
    }

    async fn load(
        self,
        deployment: Deployment,
        layers: Layers,
        reserved: u64,
    ) -> Result<Arc<ServedStage>, RuntimeError> {
        let key = (deployment.id(), layers);
        let held = || self.loaded.lock().get(&key).cloned();
        // A stage that is loaded must not wait for the loading of another.
        if let Some(loaded) = held() {
            return self.check_room(reserved).map(|()| loaded);
        }
        let _one_at_a_time = self.loaded.loading.lock().await;
        if let Some(loaded) = held() {
            return self.check_room(reserved).map(|()| loaded);
        }
        let (config, manifest) = self.model(&deployment).await?;
        let source = ModelBlobs::fetch(&self.blobs, &config, &manifest, layers).await?;
        let (span, positions) = (spec::span(layers), deployment.positions.into());
        let bytes = WeightBytes::loaded(&config, span, positions, &source, &self.device);
        self.check_room(reserved.saturating_add(bytes))?;
        let options = stage_options(&deployment, config, layers, &self.device)?;
        let faults = self.faults.clone();
        let load = move || {
            let other = faults.before_loading_weights(&source);
            let source: &dyn TensorSource = other.as_deref().unwrap_or(&source);
            Stage::load(options, source, &BTreeMap::new())
        };
        let stage = on_a_thread(load).await??;
        let loaded = Arc::new(ServedStage { stage, bytes });
        self.loaded.lock().insert(key, loaded.clone());
        Ok(loaded)
    }

    /// Whether memory holds so many bytes beside what is loaded.
    fn check_room(&self, bytes: u64) -> Result<(), RuntimeError> {
        let needed = self.loaded.bytes().saturating_add(bytes);
        let limit = self.memory_bytes;
        if needed <= limit {
            return Ok(());
        }
        Err(RuntimeError::NoRoom { needed, limit })
    }

    /// An adapter, for a stage.
    ///
    /// # Errors
    /// [`RuntimeError`] where it is unavailable or does not fit the model.
    pub(crate) async fn adapter(
        &self,
        stage: Arc<ServedStage>,
        adapter: Digest,
    ) -> Result<Arc<StageAdapter>, RuntimeError> {
        let (spec, tensors) = adapter_tensors(&self.blobs, adapter).await?;
        let load = move || StageAdapter::load(&stage.stage, &spec, &tensors);
        Ok(Arc::new(on_a_thread(load).await??))
    }
}

/// The configuration and the manifest of the model of a deployment.
pub(crate) async fn fetch_model(
    blobs: &Blobs,
    deployment: &Deployment,
) -> Result<(Arc<DecoderConfig>, ModelManifest), RuntimeError> {
    let version = deployment.arithmetic;
    if version != ARITHMETIC_VERSION {
        let why = format!("it asks for arithmetic {version}, this build has {ARITHMETIC_VERSION}");
        return Err(RuntimeError::Unsupported(why));
    }
    let digest = deployment.model;
    let manifest: ModelManifest = blobs.get_value(digest, "model manifest").await?;
    let config = DecoderConfig::from_canonical(&manifest.config)?;
    let (layers, vocab) = (config.layers as u64, config.vocab as u64);
    if (layers, vocab) != (u64::from(deployment.layers), u64::from(deployment.vocab)) {
        let why = format!("its model has {layers} layers and a vocabulary of {vocab}");
        return Err(RuntimeError::Unsupported(why));
    }
    // The table of rotations has a row for each position.
    if deployment.positions == 0 || deployment.positions as usize > config.max_positions {
        let (asked, most) = (deployment.positions, config.max_positions);
        let why = format!("it asks for {asked} positions, its model knows {most}");
        return Err(RuntimeError::Unsupported(why));
    }
    Ok((Arc::new(config), manifest))
}

/// The options of a stage that serves.
///
/// # Errors
/// [`RuntimeError::Unsupported`] for a precision that this build does not know.
pub(crate) fn stage_options(
    deployment: &Deployment,
    config: Arc<DecoderConfig>,
    layers: Layers,
    device: &Device,
) -> Result<StageOptions, RuntimeError> {
    Ok(StageOptions {
        device: device.clone(),
        config,
        layers: spec::span(layers),
        precisions: Precisions {
            weights: spec::precision(deployment.precision.weights)?,
            activations: spec::precision(deployment.precision.activations)?,
            key_values: spec::precision(deployment.precision.key_values)?,
        },
        lora: None,
        trains_all: false,
        positions: deployment.positions as usize,
    })
}

/// An adapter's spec and all its tensors.
///
/// # Errors
/// [`RuntimeError`] where it is unavailable.
pub(crate) async fn adapter_tensors(
    blobs: &Blobs,
    adapter: Digest,
) -> Result<(LoraSpec, BTreeMap<String, Tensor>), RuntimeError> {
    let manifest: AdapterManifest = blobs.get_value(adapter, "adapter").await?;
    let lora = spec::served_lora(&manifest.lora)?;
    let mut tensors = BTreeMap::new();
    for ModelTensor { name, blob, bytes } in manifest.tensors {
        let found = blobs.get(blob).await?;
        tensors.insert(name, decode(blob, &found, bytes / 4)?);
    }
    Ok((lora, tensors))
}

fn decode(digest: Digest, bytes: &[u8], elements: u64) -> Result<Tensor, RuntimeError> {
    let what = "tensor";
    tensor_blob::decode_stored(bytes, elements).map_err(|why| RuntimeError::BadBlob {
        digest,
        what,
        why,
    })
}

/// Runs what takes long on a thread of its own.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| RuntimeError::Unsupported(error.to_string()))
}
