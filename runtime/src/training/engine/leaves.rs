//! The leaves of a step and what opens them.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_proto::session::Scalars;
use concord_proto::tree::Node;
use concord_proto::{
    AdapterSpec, ClaimInput, Digest, GradientPart, Leaf, LeafPhase, Origin, Port, PortKind,
    canonical, merkle,
};
use concord_verify::training::parts;

use super::committed::CommittedStage;
use super::openings::StepOpenings;
use crate::training::core::{Exchange, PartKey};
use crate::training::data::Microbatch;
use crate::training::leaf_work::PartSum;

/// Inputs of a leaf together with the addresses that open them.
#[derive(Default)]
pub(super) struct LeafInputs {
    pub(super) inputs: Vec<ClaimInput>,
    pub(super) openings: Vec<Vec<Digest>>,
}

impl LeafInputs {
    pub(super) fn push(&mut self, port: Port, origin: Option<Origin>, opening: Vec<Digest>) {
        self.inputs.push(ClaimInput { port, origin });
        self.openings.push(opening);
    }
}

/// A partial sum with the signature that it came under.
pub(super) struct Received {
    pub(super) sum: Arc<PartSum>,
    pub(super) origin: Option<Origin>,
}

impl CommittedStage {
    /// Adds what opens the state ports.
    pub(super) fn open_state(&self, openings: &mut StepOpenings) {
        for (state, held) in self.entries.iter().zip(self.state.0.values()) {
            openings.tensor(state.entry.value, &held.value);
            openings.moment(state.entry.first_moment, &held.first_moment);
            openings.moment(state.entry.second_moment, &held.second_moment);
        }
    }

    fn state_input(&self, inputs: &mut LeafInputs) {
        inputs.push(self.state_ports()[0], None, self.value_digests());
    }

    /// State, tokens and hidden states of a microbatch.
    pub(super) fn common_inputs(
        &self,
        microbatch: &Microbatch,
        activation: Option<&ClaimInput>,
    ) -> LeafInputs {
        let mut inputs = LeafInputs::default();
        self.state_input(&mut inputs);
        if self.stage().is_first() || self.stage().is_last() {
            let port = Port {
                kind: PortKind::Tokens,
                digest: microbatch.digest,
            };
            inputs.push(port, None, Vec::new());
        }
        if let Some(input) = activation {
            inputs.push(input.port, input.origin.clone(), vec![input.port.digest]);
        }
        inputs
    }

    /// A leaf, whose inputs are added to `openings`.
    pub(super) fn leaf(
        &self,
        openings: &mut StepOpenings,
        phase: LeafPhase,
        microbatch: u32,
        inputs: LeafInputs,
        outputs: Vec<Port>,
    ) -> Leaf {
        openings.leaf(phase, microbatch, inputs.openings);
        Leaf {
            phase,
            microbatch,
            layers: self.layers,
            inputs: inputs.inputs,
            outputs,
        }
    }

    /// Whether checkers compute the microbatches of a sum again, because their gradients are not
    /// held: in a full fine-tune each has the size of the model.
    pub(super) fn computes_sums_again(&self) -> bool {
        self.spec.adapter == AdapterSpec::Full
    }

    /// Addresses of the values before the step.
    pub(super) fn value_digests(&self) -> Vec<Digest> {
        self.entries.iter().map(|state| state.entry.value).collect()
    }

    /// Inputs of the sum over `node`: the gradients of its microbatches, by their addresses.
    pub(super) fn reduce_inputs(
        &self,
        node: Node,
        gradients: &BTreeMap<(u32, GradientPart), Vec<Digest>>,
    ) -> LeafInputs {
        let mut inputs = LeafInputs::default();
        for part in parts(&self.spec, self.layers) {
            for microbatch in node.start..node.end {
                let digests = gradients
                    .get(&(microbatch, part))
                    .cloned()
                    .unwrap_or_default();
                let node = Node::leaf(microbatch);
                let port = Port {
                    kind: PortKind::Partial { node, part },
                    digest: merkle::root(&digests),
                };
                inputs.push(port, None, digests);
            }
        }
        inputs
    }

    /// The partial sums of all, which make the gradients of the step: the inputs of its norms.
    pub(super) fn step_sums(
        &self,
        openings: &mut StepOpenings,
        exchange: &Exchange<Received>,
        inputs: &mut LeafInputs,
    ) {
        for (PartKey { part, node }, received) in exchange.values() {
            let sum = &received.sum;
            for (digest, tensor) in sum.digests.iter().zip(&sum.tensors) {
                openings.tensor(*digest, tensor);
            }
            inputs.push(
                sum.port(*node, *part),
                received.origin.clone(),
                sum.digests.clone(),
            );
        }
    }

    /// Inputs of the update: state, moments, scalars, and the partial sums of all.
    pub(super) fn update_inputs(
        &self,
        openings: &mut StepOpenings,
        exchange: &Exchange<Received>,
        scalars: &Scalars,
    ) -> LeafInputs {
        let mut inputs = LeafInputs::default();
        self.state_input(&mut inputs);
        let moments = self.entries.iter().map(|state| state.entry);
        let moments = moments
            .flat_map(|e| [e.first_moment, e.second_moment])
            .collect();
        inputs.push(self.state_ports()[1], None, moments);
        let digest = scalars.digest();
        openings.bytes(digest, canonical::encode(scalars));
        inputs.push(
            Port {
                kind: PortKind::Scalars,
                digest,
            },
            None,
            vec![digest],
        );
        self.step_sums(openings, exchange, &mut inputs);
        inputs
    }
}
