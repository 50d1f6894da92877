//! Fetching what a stage needs: spec, model tensors of its layers, trained state.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_models::config::{DecoderConfig, Place};
use concord_models::decoder::Trainable;
use concord_models::train::{StateTensor, TrainState};
use concord_proto::manifest::{DataManifest, ModelManifest, StateEntry, StateManifest};
use concord_proto::session::Assignment;
use concord_proto::{Digest, JobSpec, Layers, WorkerId};

use crate::blobs::Blobs;
use crate::data::DataSource;
use crate::engine::{BaseTensors, LoadedStage};
use crate::{RuntimeError, spec as words, tensor_blob, work};

/// Fetches all that `worker` needs for its seat.
pub(crate) async fn fetch(
    blobs: &Blobs,
    assignment: Assignment,
    worker: WorkerId,
) -> Result<(LoadedStage, DataSource), RuntimeError> {
    let spec: JobSpec = blobs.get_value(assignment.spec, "job spec").await?;
    let plan = assignment.plan;
    plan.validate(spec.layers, spec.microbatches)
        .map_err(RuntimeError::Unsupported)?;
    let unplanned = || RuntimeError::Unsupported("the plan has no seat for this worker".into());
    let seat = plan.seat(&worker).ok_or_else(unplanned)?;
    let layers = plan.stages[seat.stage];
    let (config, tensors) = fetch_model(blobs, &spec, layers).await?;
    let data: DataManifest = blobs.get_value(spec.data, "data manifest").await?;
    let data = DataSource::new(&spec, Arc::new(data), &config)?;
    let state: StateManifest = blobs.get_value(assignment.state, "state manifest").await?;
    let loaded = LoadedStage {
        job: spec.id(),
        state: fetch_state(blobs, &spec, layers, &state.entries).await?,
        step: state.step,
        endpoints: assignment.endpoints,
        seat,
        config,
        tensors,
        sequence_len: data.sequence_len(),
        recompute: assignment.recompute,
        depth: assignment.depth,
        plan,
        spec: Arc::new(spec),
        #[cfg(feature = "liars")]
        lower_precision: None,
    };
    Ok((loaded, data))
}

/// Fetches the tensors that the stage of `layers` computes with but does not train.
pub(crate) async fn fetch_model(
    blobs: &Blobs,
    spec: &JobSpec,
    layers: Layers,
) -> Result<(Arc<DecoderConfig>, BaseTensors), RuntimeError> {
    let manifest: ModelManifest = blobs.get_value(spec.model, "model manifest").await?;
    let config = DecoderConfig::from_json(&manifest.config_json)?;
    words::check_trainable(spec, &config)?;
    let trains_all = words::trainable(&spec.adapter)? == Trainable::Full;
    let specs = config.tensors();
    let mut tensors = BTreeMap::new();
    if !trains_all {
        for entry in &manifest.tensors {
            let held = Place::of(&entry.name)
                .map(|place| words::place(place, config.tie_embeddings))
                .is_some_and(|place| layers.holds(place, spec.layers));
            if held {
                let bytes = blobs.get(entry.blob).await?;
                let tensor = tensor_blob::decode(&bytes).map_err(|why| bad(entry.blob, why))?;
                tensor.check_finite(&entry.name)?;
                let shape = specs
                    .iter()
                    .find(|s| s.name == entry.name)
                    .map(|s| &s.shape[..]);
                if shape != Some(tensor.shape()) {
                    let why = format!("{} has the shape {:?}", entry.name, tensor.shape());
                    return Err(bad(entry.blob, why));
                }
                tensors.insert(entry.name.clone(), tensor);
            }
        }
    }
    Ok((Arc::new(config), BaseTensors(tensors)))
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
    for (index, name) in work::held_names(spec, layers) {
        let entry = entries[index as usize];
        let mut tensors = Vec::new();
        for digest in [entry.value, entry.first_moment, entry.second_moment] {
            let bytes = blobs.get(digest).await?;
            let tensor = tensor_blob::decode(&bytes).map_err(|why| bad(digest, why))?;
            let shape = &spec.trainable[index as usize].shape;
            if !tensor
                .shape()
                .iter()
                .map(|&dim| dim as u64)
                .eq(shape.iter().copied())
            {
                return Err(bad(
                    digest,
                    format!("{name} has the shape {:?}", tensor.shape()),
                ));
            }
            tensors.push(Arc::new(tensor));
        }
        let [value, first_moment, second_moment] =
            <[_; 3]>::try_from(tensors).expect("three were fetched");
        state.0.insert(
            name,
            StateTensor {
                value,
                first_moment,
                second_moment,
            },
        );
    }
    Ok(state)
}

fn bad(digest: Digest, why: String) -> RuntimeError {
    RuntimeError::BadBlob {
        digest,
        what: "tensor",
        why,
    }
}
