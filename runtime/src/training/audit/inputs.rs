//! The inputs of a leaf.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_kernels::{MomentKind, Tensor};
use concord_models::decoder::Values;
use concord_models::train::{Moment, StateTensor, TrainState};
use concord_proto::session::{AuditOrder, OpenRequest, OpenedMicrobatch, Opening, Scalars};
use concord_proto::tree::Node;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{Body, ending};
use concord_proto::{
    Digest, JobSpec, Keypair, Leaf, LeafPhase, Port, PortKind, WorkerId, canonical,
};
use concord_verify::training::opens;

use tonic::transport::Channel;

use super::again::{GivenAgain, node_of};
use super::fetching::{InputLimits, fetch_tensors, fetch_together, missing};
use super::job::AuditedJob;
use crate::blobs::Blobs;
use crate::training::data::Microbatch;
use crate::training::leaf_work;
use crate::{RuntimeError, moment_blob, session, spec};

/// How long a worker may take to give the inputs of a leaf (of each microbatch, where these are
/// computed again for a sum), without the time that the leaf waits
/// for its turn: a leaf that is never given must not block the others of its worker.
pub(super) const INPUTS_MAX: Duration = Duration::from_secs(30);

/// A leaf that its worker has opened: the addresses of the inputs are known, the inputs themselves
/// are not fetched yet.
pub(crate) struct OpenedLeaf {
    order: AuditOrder,
    channel: Channel,
    opened: Opened,
    limits: InputLimits,
    /// How long it may take to give them.
    left: Duration,
}

/// Addresses of what the leaf is computed from.
enum Opened {
    /// Of the inputs, for each port.
    Ports(Vec<Vec<Digest>>),
    /// Of a sum: of the values, and of what its microbatches are computed from again.
    Again(Vec<Digest>, Vec<OpenedMicrobatch>),
}

impl Opened {
    fn addresses(&self) -> Vec<Vec<Digest>> {
        match self {
            Self::Ports(ports) => ports.clone(),
            Self::Again(values, microbatches) => {
                let received = microbatches.iter().map(|opened| {
                    let received = [opened.activation, opened.gradient];
                    received.into_iter().flatten().collect()
                });
                [values.clone()].into_iter().chain(received).collect()
            }
        }
    }
}

impl OpenedLeaf {
    /// Asks the worker of a leaf, of the job with this spec, to open it. No input is taken of more
    /// than `room` bytes.
    ///
    /// # Errors
    /// [`RuntimeError::Unreachable`] where it does not, or not in time.
    pub(crate) async fn ask(
        order: AuditOrder,
        spec: &JobSpec,
        key: &Keypair,
        room: u64,
    ) -> Result<Self, RuntimeError> {
        let (worker, start) = (order.worker, Instant::now());
        let limits = InputLimits::of(spec, order.leaf.layers, room);
        let (channel, opened) = in_time(&worker, INPUTS_MAX, open(&order, limits, key)).await?;
        let turns = match &opened {
            Opened::Ports(_) => 1,
            // As the coordinator waits for so many to be computed again.
            Opened::Again(_, microbatches) => microbatches.len().max(1) as u32,
        };
        Ok(Self {
            order,
            channel,
            opened,
            limits,
            left: (INPUTS_MAX * turns).saturating_sub(start.elapsed()),
        })
    }

    /// Fetches what the worker gives. To be called when it is the worker's turn.
    ///
    /// # Errors
    /// [`RuntimeError`] where an input does not come in time or is not what the leaf says.
    pub(crate) async fn fetch(self) -> Result<GivenInputs, RuntimeError> {
        let (worker, left) = (self.order.worker, self.left);
        in_time(&worker, left, self.fetch_all()).await
    }

    async fn fetch_all(self) -> Result<GivenInputs, RuntimeError> {
        let mut given = GivenInputs {
            addresses: self.opened.addresses(),
            leaf: self.order.leaf,
            tensors: Vec::new(),
            moments: Vec::new(),
            scalars: None,
            again: None,
        };
        let (channel, limits) = (&self.channel, self.limits);
        match self.opened {
            Opened::Ports(opened) => {
                let ports = given.leaf.inputs.iter().map(|input| input.port);
                for (port, digests) in ports.collect::<Vec<_>>().into_iter().zip(opened) {
                    given.take(port, channel, limits, digests).await?;
                }
            }
            Opened::Again(values, microbatches) => {
                let again = GivenAgain::fetch(channel, limits, values, microbatches).await?;
                given.again = Some(again);
            }
        }
        Ok(given)
    }
}

async fn open(
    order: &AuditOrder,
    limits: InputLimits,
    key: &Keypair,
) -> Result<(Channel, Opened), RuntimeError> {
    let leaf = &order.leaf;
    let request = OpenRequest {
        job: order.job,
        epoch: order.epoch,
        step: order.step,
        phase: leaf.phase,
        microbatch: leaf.microbatch,
    };
    let channel = session::connect(&order.endpoint, key).await?;
    let withheld = |why: String| RuntimeError::Unreachable {
        endpoint: format!("worker {}", order.worker.short()),
        why,
    };
    let mut client = WorkerClient::new(channel.clone());
    let bytes = canonical::encode(&request);
    let answer = client.open(Body { bytes }).await;
    let body = answer
        .map_err(|status| withheld(ending(&status)))?
        .into_inner();
    let opening: Opening =
        canonical::decode(&body.bytes).map_err(|error| withheld(error.to_string()))?;
    let ports = match opening {
        Opening::Inputs(ports) => ports,
        Opening::Again {
            values,
            microbatches,
        } => {
            let count = node_of(leaf).map_or(0, |node| node.len() as usize);
            if leaf.phase != LeafPhase::Reduce || microbatches.len() != count {
                return Err(withheld("it opened no sum of microbatches".to_string()));
            }
            if values.len() != limits.held {
                return Err(withheld("it opened another number of values".to_string()));
            }
            return Ok((channel, Opened::Again(values, microbatches)));
        }
        Opening::Gone => return Err(withheld("the inputs of the leaf are gone".to_string())),
    };
    if ports.len() != leaf.inputs.len() {
        return Err(withheld("it opened another number of inputs".to_string()));
    }
    for (input, digests) in leaf.inputs.iter().zip(&ports) {
        if digests.len() > limits.blobs(input.port.kind) || !opens(input.port, digests) {
            let kind = input.port.kind;
            return Err(withheld(format!("what it opened is not {kind:?}")));
        }
    }
    Ok((channel, Opened::Ports(ports)))
}

/// What a worker gave of the inputs of a leaf, checked against the leaf's digests.
pub(crate) struct GivenInputs {
    /// Of the blobs, as convictions have them.
    pub(crate) addresses: Vec<Vec<Digest>>,
    leaf: Leaf,
    tensors: Vec<(PortKind, Vec<Arc<Tensor>>)>,
    moments: Vec<Moment>,
    scalars: Option<Scalars>,
    again: Option<GivenAgain>,
}

impl GivenInputs {
    async fn take(
        &mut self,
        port: Port,
        channel: &Channel,
        limits: InputLimits,
        digests: Vec<Digest>,
    ) -> Result<(), RuntimeError> {
        let most = limits.bytes(port.kind);
        if port.kind == PortKind::Scalars {
            let read = |bytes: Vec<u8>| {
                canonical::decode(&bytes).map_err(|error| ("scalars", error.to_string()))
            };
            self.scalars = fetch_together(channel, digests, most, read).await?.pop();
            return Ok(());
        }
        if port.kind == PortKind::Moments {
            let read = |bytes: Vec<u8>| moment_blob::decode(&bytes).map_err(|why| ("moment", why));
            self.moments = fetch_together(channel, digests, most, read).await?;
            return Ok(());
        }
        let tensors = fetch_tensors(channel, digests, most).await?;
        self.tensors.push((port.kind, tensors));
        Ok(())
    }
}

/// All inputs of a leaf: what its worker gave, and what its job says.
pub(crate) struct Inputs {
    pub(super) spec: Arc<JobSpec>,
    pub(crate) leaf: Leaf,
    tensors: Vec<(PortKind, Vec<Arc<Tensor>>)>,
    moments: Vec<Moment>,
    pub(super) scalars: Option<Scalars>,
    pub(super) again: Option<GivenAgain>,
    /// The microbatch of a leaf; all those of a sum that are computed again.
    pub(super) microbatches: Vec<Microbatch>,
    pub(super) sequence_len: usize,
    /// Whether its step is an evaluation.
    pub(super) evaluates: bool,
}

impl Inputs {
    /// Joins what the worker gave to what the coordinator has: the spec, and the data of `step`.
    ///
    /// # Errors
    /// [`RuntimeError`] where the data cannot be fetched or are not what the job says.
    pub(crate) async fn join(
        given: GivenInputs,
        blobs: &Blobs,
        job: &mut AuditedJob,
        step: u32,
    ) -> Result<Self, RuntimeError> {
        let GivenInputs {
            addresses: _,
            leaf,
            tensors,
            moments,
            scalars,
            again,
        } = given;
        let wanted = match (leaf.phase, &again) {
            (LeafPhase::Forward | LeafPhase::Backward, _) => Some(Node::leaf(leaf.microbatch)),
            (LeafPhase::Reduce, Some(_)) => node_of(&leaf),
            (LeafPhase::Reduce | LeafPhase::Norm | LeafPhase::Update, _) => None,
        };
        let mut microbatches = Vec::new();
        for microbatch in wanted.iter().flat_map(|node| node.start..node.end) {
            microbatches.push(job.data.microbatch(blobs, step, microbatch).await?);
        }
        // What is computed here is from the data of the job. A leaf that names others is not right,
        // whatever comes out.
        if let (Some(tokens), [own]) = (leaf.input(PortKind::Tokens), &microbatches[..])
            && tokens.port.digest != own.digest
        {
            return Err(missing("the tokens of its microbatch"));
        }
        Ok(Self {
            spec: job.spec.clone(),
            leaf,
            tensors,
            moments,
            scalars,
            again,
            microbatches,
            sequence_len: job.data.sequence_len(),
            evaluates: job.spec.is_evaluation(step),
        })
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
    /// The values of what the stage trains.
    pub(super) fn values(&self) -> Result<StateValues, RuntimeError> {
        let held = leaf_work::held_names(&self.spec, self.leaf.layers);
        let values = match &self.again {
            Some(again) => &again.values,
            None => self.tensors(|kind| kind == PortKind::State).unwrap_or(&[]),
        };
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
        let held = leaf_work::held_names(&self.spec, self.leaf.layers);
        let values = self.values()?.0;
        if self.moments.len() != 2 * values.len() || held.len() != values.len() {
            return Err(missing("its moments"));
        }
        let form = spec::moments(&self.spec);
        let mut state = TrainState::default();
        for ((index, name), pair) in held.into_iter().zip(self.moments.chunks_exact(2)) {
            let shape = &self.spec.trainable[index as usize].shape;
            for (moment, kind) in pair.iter().zip([MomentKind::First, MomentKind::Second]) {
                let due = moment_blob::check(moment, form, kind, shape);
                due.map_err(|_| missing("a moment of the right form"))?;
            }
            let tensor = StateTensor {
                value: values[&name].clone(),
                first_moment: pair[0].clone(),
                second_moment: pair[1].clone(),
            };
            state.0.insert(name, tensor);
        }
        Ok(state)
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
