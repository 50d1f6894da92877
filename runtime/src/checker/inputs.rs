//! The inputs of a leaf.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::Tensor;
use concord_models::config::DecoderConfig;
use concord_models::train::{StateTensor, TrainState};
use concord_proto::manifest::{DataManifest, ModelManifest};
use concord_proto::session::{AuditOrder, OpenRequest, Opening, Scalars};
use concord_proto::wire::Body;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::{Digest, JobSpec, Leaf, Phase, Port, PortKind, canonical, merkle};

use crate::blobs::{Blobs, fetch_from_worker};
use crate::data::{DataSource, Microbatch};
use crate::{RuntimeError, session, tensor_blob, work};

/// The inputs of a leaf, fetched and checked against its digests.
pub(super) struct Inputs {
    pub(super) spec: JobSpec,
    pub(super) leaf: Leaf,
    tensors: Vec<(PortKind, Vec<Arc<Tensor>>)>,
    pub(super) scalars: Option<Scalars>,
    pub(super) microbatch: Option<Microbatch>,
    pub(super) sequence_len: usize,
}

impl Inputs {
    /// Fetches the inputs of a leaf from its worker, spec and data from the coordinator.
    pub(super) async fn fetch(blobs: &Blobs, order: &AuditOrder) -> Result<Self, RuntimeError> {
        let spec: JobSpec = blobs.get_value(order.spec, "job spec").await?;
        let leaf = order.leaf.clone();
        let request = OpenRequest {
            job: order.job,
            epoch: order.epoch,
            step: order.step,
            phase: leaf.phase,
            microbatch: leaf.microbatch,
        };
        let channel = session::connect(&order.endpoint).await?;
        let withheld = |why: String| RuntimeError::Unreachable {
            endpoint: format!("worker {}", order.worker.short()),
            why,
        };
        let mut client = WorkerClient::new(channel.clone());
        let answer = client
            .open(Body {
                bytes: canonical::encode(&request),
            })
            .await;
        let body = answer
            .map_err(|status| withheld(status.message().to_string()))?
            .into_inner();
        let opening: Opening =
            canonical::decode(&body.bytes).map_err(|error| withheld(error.to_string()))?;
        let Opening::Inputs(ports) = opening else {
            return Err(withheld("the inputs of the leaf are gone".to_string()));
        };
        if ports.len() != leaf.inputs.len() {
            return Err(withheld("it opened another number of inputs".to_string()));
        }
        let mut inputs = Self {
            spec,
            leaf: leaf.clone(),
            tensors: Vec::new(),
            scalars: None,
            microbatch: None,
            sequence_len: 0,
        };
        for (input, digests) in leaf.inputs.iter().zip(ports) {
            let port = input.port;
            if !opens(port, &digests) {
                return Err(withheld(format!("what it opened is not {:?}", port.kind)));
            }
            inputs.take(port, fetch_together(&channel, digests).await?)?;
        }
        let data: DataManifest = blobs.get_value(inputs.spec.data, "data manifest").await?;
        inputs.sequence_len = data.sequence_len as usize;
        if matches!(leaf.phase, Phase::Forward | Phase::Backward) {
            let model: ModelManifest = blobs.get_value(inputs.spec.model, "model manifest").await?;
            let config = DecoderConfig::from_json(&model.config_json)?;
            let mut source = DataSource::new(&inputs.spec, Arc::new(data), &config)?;
            let microbatch = source
                .microbatch(blobs, order.step, leaf.microbatch)
                .await?;
            inputs.microbatch = Some(microbatch);
        }
        Ok(inputs)
    }

    pub(super) fn tensors(&self, wanted: impl Fn(PortKind) -> bool) -> Option<&[Arc<Tensor>]> {
        self.tensors
            .iter()
            .find(|(kind, _)| wanted(*kind))
            .map(|(_, tensors)| &tensors[..])
    }

    pub(super) fn hidden(&self) -> Option<&Tensor> {
        let found = self.tensors(|kind| matches!(kind, PortKind::Activation(_)))?;
        found.first().map(|tensor| &**tensor)
    }
}
impl Inputs {
    fn take(&mut self, port: Port, blobs: Vec<(Digest, Vec<u8>)>) -> Result<(), RuntimeError> {
        if port.kind == PortKind::Scalars {
            for (digest, bytes) in blobs {
                let bad = |why: String| RuntimeError::BadBlob {
                    digest,
                    what: "scalars",
                    why,
                };
                self.scalars =
                    Some(canonical::decode(&bytes).map_err(|error| bad(error.to_string()))?);
            }
            return Ok(());
        }
        let mut tensors = Vec::new();
        for (digest, bytes) in blobs {
            let bad = |why| RuntimeError::BadBlob {
                digest,
                what: "tensor",
                why,
            };
            tensors.push(Arc::new(tensor_blob::decode(&bytes).map_err(bad)?));
        }
        self.tensors.push((port.kind, tensors));
        Ok(())
    }

    pub(super) fn state_values(&self) -> Result<BTreeMap<String, Tensor>, RuntimeError> {
        let held = work::held_names(&self.spec, self.leaf.layers);
        let values = self.tensors(|kind| kind == PortKind::State).unwrap_or(&[]);
        if values.len() != held.len() {
            return Err(missing("its state"));
        }
        let shaped = held.iter().zip(values).all(|((index, _), tensor)| {
            let shape = &self.spec.trainable[*index as usize].shape;
            shape
                .iter()
                .copied()
                .eq(tensor.shape().iter().map(|&dim| dim as u64))
        });
        if !shaped {
            return Err(missing("a state of the right shape"));
        }
        let pair =
            |((_, name), value): (&(u32, String), &Arc<Tensor>)| (name.clone(), (**value).clone());
        Ok(held.iter().zip(values).map(pair).collect())
    }

    pub(super) fn state(&self) -> Result<TrainState, RuntimeError> {
        let values = self.state_values()?;
        let moments = self
            .tensors(|kind| kind == PortKind::Moments)
            .unwrap_or(&[]);
        if moments.len() != 2 * values.len() {
            return Err(missing("its moments"));
        }
        let tensor = |((name, value), pair): ((String, Tensor), &[Arc<Tensor>])| {
            let (first_moment, second_moment) = (pair[0].clone(), pair[1].clone());
            (
                name,
                StateTensor {
                    value: Arc::new(value),
                    first_moment,
                    second_moment,
                },
            )
        };
        Ok(TrainState(
            values
                .into_iter()
                .zip(moments.chunks_exact(2))
                .map(tensor)
                .collect(),
        ))
    }
}

/// Blobs fetched from a worker at a time.
const FETCHED_AT_ONCE: usize = 32;

async fn fetch_together(
    channel: &tonic::transport::Channel,
    digests: Vec<Digest>,
) -> Result<Vec<(Digest, Vec<u8>)>, RuntimeError> {
    let mut blobs = Vec::new();
    for some in digests.chunks(FETCHED_AT_ONCE) {
        let fetch = |&digest: &Digest| tokio::spawn(fetch_from_worker(channel.clone(), digest));
        let tasks: Vec<_> = some.iter().map(fetch).collect();
        for (digest, task) in some.iter().zip(tasks) {
            let failed = |error: tokio::task::JoinError| RuntimeError::Unreachable {
                endpoint: "a worker".to_string(),
                why: error.to_string(),
            };
            blobs.push((*digest, task.await.map_err(failed)??));
        }
    }
    Ok(blobs)
}

/// Whether addresses open a port.
fn opens(port: Port, digests: &[Digest]) -> bool {
    match port.kind {
        PortKind::State | PortKind::Moments | PortKind::Partial { .. } => {
            merkle::root(digests) == port.digest
        }
        PortKind::Tokens | PortKind::Loss => digests.is_empty(),
        PortKind::Activation(_) | PortKind::Gradient(_) | PortKind::Scalars => {
            digests == [port.digest]
        }
    }
}

pub(super) fn missing(what: &str) -> RuntimeError {
    RuntimeError::Unsupported(format!("the leaf lacks {what}"))
}
