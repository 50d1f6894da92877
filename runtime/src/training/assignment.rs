//! Fetching what a stage needs: spec, model tensors of its layers, trained state.

use std::sync::Arc;

use concord_kernels::{MomentKind, Tensor};
use concord_models::config::DecoderConfig;
use concord_models::decoder::Trainable;
use concord_models::train::{Moment, StateTensor, TrainState};
use concord_proto::manifest::{DataManifest, ModelManifest, StateEntry, StateManifest};
use concord_proto::session::Assignment;
use concord_proto::{Digest, JobId, JobSpec, Layers, Plan, Slot, WorkerId};

use super::data::DataSource;
use super::leaf_work;
use crate::blobs::Blobs;
use crate::model_blobs::ModelBlobs;
use crate::{RuntimeError, moment_blob, spec, tensor_blob};

/// What a stage is loaded from: everything has been fetched and checked.
pub(crate) struct FetchedStage {
    pub(crate) job: JobId,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) plan: Plan,
    pub(crate) endpoints: Vec<String>,
    pub(crate) slot: Slot,
    pub(crate) config: Arc<DecoderConfig>,
    pub(crate) tensors: ModelBlobs,
    pub(crate) state: TrainState,
    pub(crate) step: u32,
    pub(crate) sequence_len: usize,
    pub(crate) recompute: bool,
    pub(crate) depth: u32,
}

/// Fetches all that `worker` needs for its slot.
pub(crate) async fn fetch(
    blobs: &Blobs,
    assignment: Assignment,
    worker: WorkerId,
) -> Result<(FetchedStage, DataSource), RuntimeError> {
    let spec: JobSpec = blobs.get_value(assignment.spec, "job spec").await?;
    let plan = assignment.plan;
    plan.validate(spec.layers, spec.microbatches)
        .map_err(RuntimeError::Unsupported)?;
    let unplanned = || RuntimeError::Unsupported("the plan has no slot for this worker".into());
    let slot = plan.slot(&worker).ok_or_else(unplanned)?;
    let layers = plan.stages[slot.stage];
    let (config, manifest) = fetch_config(blobs, &spec).await?;
    let tensors = fetch_base(blobs, &spec, &config, &manifest, layers).await?;
    let data: DataManifest = blobs.get_value(spec.data, "data manifest").await?;
    let data = DataSource::new(&spec, Arc::new(data), &config)?;
    let state: StateManifest = blobs.get_value(assignment.state, "state manifest").await?;
    let manifests = [assignment.spec, assignment.state, spec.model, spec.data];
    let needed = manifests.into_iter().chain(tensors.addresses());
    blobs.trim(needed.chain(data.chunks()).collect()).await;
    let loaded = FetchedStage {
        job: spec.id(),
        state: fetch_state(blobs, &spec, layers, &state.entries).await?,
        step: state.step,
        endpoints: assignment.endpoints,
        slot,
        config,
        tensors,
        sequence_len: data.sequence_len(),
        recompute: assignment.recompute,
        depth: assignment.depth,
        plan,
        spec: Arc::new(spec),
    };
    Ok((loaded, data))
}

/// The model of a job, as its manifest has it.
///
/// # Errors
/// [`RuntimeError`] where it is unavailable, or is another than the job trains.
pub(crate) async fn fetch_config(
    blobs: &Blobs,
    spec: &JobSpec,
) -> Result<(Arc<DecoderConfig>, ModelManifest), RuntimeError> {
    let manifest: ModelManifest = blobs.get_value(spec.model, "model manifest").await?;
    let config = DecoderConfig::from_canonical(&manifest.config)?;
    spec::check_trainable(spec, &config)?;
    Ok((Arc::new(config), manifest))
}

/// Fetches the tensors that the stage of `layers` computes with but does not train.
///
/// # Errors
/// [`RuntimeError`] where one is unavailable.
pub(crate) async fn fetch_base(
    blobs: &Blobs,
    spec: &JobSpec,
    config: &DecoderConfig,
    manifest: &ModelManifest,
    layers: Layers,
) -> Result<ModelBlobs, RuntimeError> {
    match spec::trainable(&spec.adapter)? {
        Trainable::Full => Ok(ModelBlobs::none(blobs)),
        _ => ModelBlobs::fetch(blobs, config, manifest, layers).await,
    }
}

/// Fetches values and moments of the tensors that the stage trains.
async fn fetch_state(
    blobs: &Blobs,
    spec: &JobSpec,
    layers: Layers,
    entries: &[StateEntry],
) -> Result<TrainState, RuntimeError> {
    if entries.len() != spec.trainable.len() {
        return Err(RuntimeError::Unsupported(
            "its state has another number of tensors".into(),
        ));
    }
    let mut state = TrainState::default();
    for (index, name) in leaf_work::held_names(spec, layers) {
        let entry = entries[index as usize];
        let shape = &spec.trainable[index as usize].shape;
        let tensor = StateTensor {
            value: fetch_value(blobs, entry.value, &name, shape).await?,
            first_moment: fetch_moment(blobs, spec, entry, MomentKind::First, shape).await?,
            second_moment: fetch_moment(blobs, spec, entry, MomentKind::Second, shape).await?,
        };
        state.0.insert(name, tensor);
    }
    Ok(state)
}

// The next plan has another state: nobody would read a copy of either on disk.

async fn fetch_value(
    blobs: &Blobs,
    digest: Digest,
    name: &str,
    shape: &[u64],
) -> Result<Arc<Tensor>, RuntimeError> {
    let bytes = blobs.get_once(digest).await?;
    let tensor = tensor_blob::decode_stored(&bytes, shape.iter().product());
    let tensor = tensor.map_err(|why| bad(digest, why))?;
    let found = tensor.shape();
    if !found
        .iter()
        .map(|&dim| dim as u64)
        .eq(shape.iter().copied())
    {
        return Err(bad(digest, format!("{name} has the shape {found:?}")));
    }
    Ok(Arc::new(tensor))
}

async fn fetch_moment(
    blobs: &Blobs,
    spec: &JobSpec,
    entry: StateEntry,
    kind: MomentKind,
    shape: &[u64],
) -> Result<Moment, RuntimeError> {
    let digest = match kind {
        MomentKind::First => entry.first_moment,
        MomentKind::Second => entry.second_moment,
    };
    let bytes = blobs.get_once(digest).await?;
    let moment = moment_blob::decode_stored(&bytes, spec::moments(spec), kind, shape);
    moment.map_err(|why| bad(digest, why))
}

fn bad(digest: Digest, why: String) -> RuntimeError {
    RuntimeError::BadBlob {
        digest,
        what: "tensor",
        why,
    }
}
