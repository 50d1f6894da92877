//! The inputs of a leaf.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use concord_kernels::Tensor;
use concord_models::decoder::Values;
use concord_models::train::{StateTensor, TrainState};
use concord_proto::session::{AuditOrder, OpenRequest, Opening, Scalars};
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Body, ending};
use concord_proto::{
    Digest, JobSpec, Leaf, LeafPhase, Port, PortKind, WorkerId, canonical, merkle,
};

use tonic::transport::Channel;

use super::job::AuditedJob;
use crate::blobs::{Blobs, fetch_from_worker};
use crate::data::Microbatch;
use crate::{RuntimeError, session, tensor_blob, work};

/// How long a worker may take to give the inputs of a leaf: leaves are fetched one after another, and
/// one that nobody gives must not keep the others from being looked at.
pub(super) const INPUTS_MAX: Duration = Duration::from_secs(30);

/// The inputs of a leaf, fetched and checked against its digests.
pub(super) struct Inputs {
    pub(super) spec: Arc<JobSpec>,
    pub(super) leaf: Leaf,
    tensors: Vec<(PortKind, Vec<Arc<Tensor>>)>,
    pub(super) scalars: Option<Scalars>,
    pub(super) microbatch: Option<Microbatch>,
    pub(super) sequence_len: usize,
}

impl Inputs {
    /// Fetches the inputs of a leaf from its worker, spec and data from the coordinator.
    pub(super) async fn fetch(
        blobs: &Blobs,
        job: &mut AuditedJob,
        order: &AuditOrder,
    ) -> Result<Self, RuntimeError> {
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
            .map_err(|status| withheld(ending(&status)))?
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
            spec: job.spec.clone(),
            leaf: leaf.clone(),
            tensors: Vec::new(),
            scalars: None,
            microbatch: None,
            sequence_len: job.data.sequence_len(),
        };
        for (input, digests) in leaf.inputs.iter().zip(ports) {
            let port = input.port;
            if !opens(port, &digests) {
                return Err(withheld(format!("what it opened is not {:?}", port.kind)));
            }
            inputs.take(port, &channel, digests).await?;
        }
        if matches!(leaf.phase, LeafPhase::Forward | LeafPhase::Backward) {
            let data = &mut job.data;
            let microbatch = data.microbatch(blobs, order.step, leaf.microbatch).await?;
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

/// Values of what a stage trains, by name.
pub(super) struct StateValues(BTreeMap<String, Arc<Tensor>>);

impl Values for StateValues {
    fn value(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name).map(|value| &**value)
    }

    fn all(&self) -> Box<dyn Iterator<Item = (&str, &Tensor)> + '_> {
        Box::new(self.0.iter().map(|(name, value)| (name.as_str(), &**value)))
    }
}

impl Inputs {
    async fn take(
        &mut self,
        port: Port,
        channel: &Channel,
        digests: Vec<Digest>,
    ) -> Result<(), RuntimeError> {
        if port.kind == PortKind::Scalars {
            let read = |bytes: Vec<u8>| {
                canonical::decode(&bytes).map_err(|error| ("scalars", error.to_string()))
            };
            self.scalars = fetch_together(channel, digests, read).await?.pop();
            return Ok(());
        }
        let read = |bytes: Vec<u8>| tensor_blob::decode(&bytes).map_err(|why| ("tensor", why));
        let tensors = fetch_together(channel, digests, read).await?;
        let tensors = tensors.into_iter().map(Arc::new).collect();
        self.tensors.push((port.kind, tensors));
        Ok(())
    }

    /// The values of what the stage trains.
    pub(super) fn values(&self) -> Result<StateValues, RuntimeError> {
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
        let names = held.into_iter().map(|(_, name)| name);
        Ok(StateValues(names.zip(values.iter().cloned()).collect()))
    }

    pub(super) fn state(&self) -> Result<TrainState, RuntimeError> {
        let held = work::held_names(&self.spec, self.leaf.layers);
        let values = self.values()?.0;
        let moments = self
            .tensors(|kind| kind == PortKind::Moments)
            .unwrap_or(&[]);
        if moments.len() != 2 * values.len() || held.len() != values.len() {
            return Err(missing("its moments"));
        }
        let tensor = |((_, name), pair): ((u32, String), &[Arc<Tensor>])| {
            let tensor = StateTensor {
                value: values[&name].clone(),
                first_moment: pair[0].clone(),
                second_moment: pair[1].clone(),
            };
            (name, tensor)
        };
        let pairs = moments.chunks_exact(2);
        Ok(TrainState(
            held.into_iter().zip(pairs).map(tensor).collect(),
        ))
    }
}

/// Blobs fetched from a worker at a time.
const FETCHED_AT_ONCE: usize = 32;

/// Fetches blobs, several at a time, and makes of each what it is as soon as it is here.
async fn fetch_together<T: Send + 'static>(
    channel: &Channel,
    digests: Vec<Digest>,
    read: impl Fn(Vec<u8>) -> Result<T, (&'static str, String)> + Copy + Send + 'static,
) -> Result<Vec<T>, RuntimeError> {
    let mut found = Vec::new();
    for some in digests.chunks(FETCHED_AT_ONCE) {
        let fetch = |&digest: &Digest| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let bytes = fetch_from_worker(channel, digest).await?;
                read(bytes).map_err(|(what, why)| RuntimeError::BadBlob { digest, what, why })
            })
        };
        let tasks: Vec<_> = some.iter().map(fetch).collect();
        for task in tasks {
            let failed = |error: tokio::task::JoinError| RuntimeError::Unreachable {
                endpoint: "a worker".to_string(),
                why: error.to_string(),
            };
            found.push(task.await.map_err(failed)??);
        }
    }
    Ok(found)
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

/// What a worker gives, if it does within `limit`.
///
/// # Errors
/// [`RuntimeError::Unreachable`] where it does not; that of `given`.
pub(super) async fn in_time<T>(
    worker: &WorkerId,
    limit: Duration,
    given: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let given = tokio::time::timeout(limit, given).await;
    given.unwrap_or_else(|_| {
        Err(RuntimeError::Unreachable {
            endpoint: format!("worker {}", worker.short()),
            why: format!("it has not given the inputs of the leaf within {limit:?}"),
        })
    })
}

pub(super) fn missing(what: &str) -> RuntimeError {
    RuntimeError::Unsupported(format!("the leaf lacks {what}"))
}

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_gives_nothing_is_not_waited_for() {
        let (worker, limit) = (PublicKey([7; 32]), Duration::from_millis(20));
        let never = std::future::pending::<Result<(), RuntimeError>>();
        let error = in_time(&worker, limit, never).await.unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains(&worker.short()) && words.contains("20ms"),
            "{words}"
        );
        assert!(
            !error.is_of_job(),
            "another worker may give what this one withholds"
        );
        let given = in_time(&worker, INPUTS_MAX, async { Ok(7) }).await;
        assert_eq!(given.unwrap(), 7);
    }
}
