//! A sum whose worker no longer holds the gradients: its microbatches are computed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_kernels::{Device, Tensor};
use concord_models::decoder::{Keeps, Stage};
use concord_proto::session::OpenedMicrobatch;
use concord_proto::tree::Node;
use concord_proto::{Digest, GradientPart, JobSpec, Leaf, Port, PortKind};

use super::fetching::{InputLimits, fetch_tensors, missing};
use super::trace::Trace;
use crate::RuntimeError;
use crate::training::data::Microbatch;
use crate::training::leaf_work::{self, PartSum, Purpose};
use crate::training::partial_sums::PartialSums;
use crate::training::shapes;

/// What a worker gave instead of gradients. That these follow from it is seen by their addresses.
pub(crate) struct GivenAgain {
    /// Values before the step, by rising index.
    pub(super) values: Vec<Arc<Tensor>>,
    received: Vec<ReceivedMicrobatch>,
}

/// What the worker received of a microbatch.
struct ReceivedMicrobatch {
    activation: Option<Arc<Tensor>>,
    gradient: Option<Arc<Tensor>>,
}

impl GivenAgain {
    /// Fetches it from the worker.
    ///
    /// # Errors
    /// [`RuntimeError`] where a tensor does not come.
    pub(super) async fn fetch(
        channel: &tonic::transport::Channel,
        limits: InputLimits,
        values: Vec<Digest>,
        microbatches: Vec<OpenedMicrobatch>,
    ) -> Result<Self, RuntimeError> {
        let values = fetch_tensors(channel, values, limits.bytes(PortKind::State)).await?;
        let mut received = Vec::new();
        for opened in microbatches {
            let one = async |digest: Option<Digest>| {
                let digest = digest.into_iter().collect();
                let found = fetch_tensors(channel, digest, limits.frame_bytes()).await;
                found.map(|mut tensors| tensors.pop())
            };
            received.push(ReceivedMicrobatch {
                activation: one(opened.activation).await?,
                gradient: one(opened.gradient).await?,
            });
        }
        Ok(Self { values, received })
    }
}

/// The node that a sum is over.
pub(super) fn node_of(leaf: &Leaf) -> Option<Node> {
    leaf.outputs.iter().find_map(|port| match port.kind {
        PortKind::Partial { node, .. } => Some(node),
        _ => None,
    })
}

/// The outputs that a sum should have.
///
/// # Errors
/// [`RuntimeError`] where what the worker gave does not lead to the gradients that it claims, or a
/// GPU fails.
pub(super) fn sum_again(
    (device, stage): (&Device, &Stage),
    spec: &JobSpec,
    (leaf, given, batches): (&Leaf, &GivenAgain, &[Microbatch]),
    trace: &mut Trace,
) -> Result<Vec<Port>, RuntimeError> {
    let node = node_of(leaf).ok_or_else(|| missing("its node"))?;
    let mut sums: BTreeMap<GradientPart, PartialSums> = BTreeMap::new();
    for ((microbatch, batch), received) in (node.start..node.end).zip(batches).zip(&given.received)
    {
        let hidden = received.activation.as_deref();
        let (layers, batch) = (leaf.layers, &batch.batch);
        let purpose = Purpose::Update(Keeps::Inputs);
        if !shapes::fits_stage(stage, batch, hidden, (received.gradient.as_deref(), true)) {
            return Err(missing("hidden states and gradients of the right shape"));
        }
        let forwarded = leaf_work::forward(stage, layers, batch, hidden, purpose)?;
        let gradient = received.gradient.as_deref();
        let done =
            leaf_work::backward(spec, stage, layers, microbatch, batch, forwarded, gradient)?;
        for (part, sum) in done.sums {
            let port = sum.port(Node::leaf(microbatch), part);
            if leaf.input(port.kind).is_none_or(|input| input.port != port) {
                return Err(missing("what leads to the gradients that it claims"));
            }
            let sums = sums.entry(part).or_default();
            sums.insert(device, microbatch, node, sum.tensors)?;
        }
    }
    let outputs = leaf.outputs.iter().map(|output| {
        let PortKind::Partial { node, part } = output.kind else {
            return Err(missing("its parts"));
        };
        let sum = sums.get_mut(&part).and_then(|sums| sums.take(node));
        let sum = PartSum::new(sum.ok_or_else(|| missing("a gradient"))?)?;
        trace.add_all(sum.tensors.iter().map(|tensor| &**tensor))?;
        Ok(sum.port(node, part))
    });
    outputs.collect()
}
