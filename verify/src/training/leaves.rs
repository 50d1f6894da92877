//! The rules on one leaf: its place, its ports, who sent what it was computed from.

use std::collections::BTreeMap;

use concord_proto::ledger::Offence;
use concord_proto::{ClaimInput, Digest, Layers, Leaf, LeafPhase, Origin, Port, PortKind};

use super::shape::{LeafShape, Need};
use super::{StepRules, leaf_words};

/// An offence of the worker whose leaf it is, and the evidence in a sentence.
pub(super) type Fault = (Offence, String);

pub(super) fn wrong<T>(evidence: String) -> Result<T, Fault> {
    Err((Offence::WrongClaim, evidence))
}

/// Checks the leaves of the worker that holds these layers.
pub(super) struct LeafChecker<'a> {
    pub(super) rules: &'a StepRules<'a>,
    pub(super) layers: Layers,
}

impl LeafChecker<'_> {
    pub(super) fn check(
        &self,
        leaf: &Leaf,
        is: (LeafPhase, u32),
        shape: &LeafShape,
    ) -> Result<(), Fault> {
        let LeafShape { needs, outputs } = shape;
        if (leaf.phase, leaf.microbatch) != is || leaf.layers != self.layers {
            return wrong(format!(
                "a leaf is the {}, not {:?} of {} as its place demands",
                leaf_words(leaf),
                is.0,
                is.1
            ));
        }
        let mut found: Vec<PortKind> = leaf.outputs.iter().map(|port| port.kind).collect();
        let mut due = outputs.clone();
        found.sort_unstable();
        due.sort_unstable();
        if found != due {
            return wrong(format!("the {} has other outputs", leaf_words(leaf)));
        }
        if leaf.inputs.len() != needs.len() {
            return wrong(format!("the {} has other inputs", leaf_words(leaf)));
        }
        needs.iter().try_for_each(|need| {
            let Some(input) = leaf.input(need.kind) else {
                return wrong(format!("the {} lacks {:?}", leaf_words(leaf), need.kind));
            };
            self.check_input(leaf, input, need)
        })
    }

    fn check_input(&self, leaf: &Leaf, input: &ClaimInput, need: &Need) -> Result<(), Fault> {
        let words = leaf_words(leaf);
        if need
            .digest
            .is_some_and(|digest| digest != input.port.digest)
        {
            return wrong(format!(
                "the {words} starts from another {:?}: {} instead of {}",
                need.kind,
                input.port.digest.short(),
                need.digest.map(|digest| digest.short()).unwrap_or_default()
            ));
        }
        match (&input.origin, need.from) {
            (None, None) => Ok(()),
            (Some(origin), Some(from)) if origin.worker == from => {
                let first = match input.port.kind {
                    PortKind::Partial { node, .. } => node.start,
                    _ => leaf.microbatch,
                };
                // A backward leaf names what its forward leaf received, and an update what its
                // norms were taken of: those signatures were checked there, and same_as_forward
                // and same_as_norm demand that they are the same.
                let repeated = match leaf.phase {
                    LeafPhase::Backward => matches!(input.port.kind, PortKind::Activation(_)),
                    LeafPhase::Update => matches!(input.port.kind, PortKind::Partial { .. }),
                    LeafPhase::Forward | LeafPhase::Reduce | LeafPhase::Norm => false,
                };
                if repeated || self.signed_by(origin, first, &input.port) {
                    Ok(())
                } else {
                    let sender = from.short();
                    let evidence = format!("the {words} has no signature of {sender} on its input");
                    Err((Offence::Forgery, evidence))
                }
            }
            _ => wrong(format!(
                "the {words} names a wrong sender of {:?}",
                need.kind
            )),
        }
    }

    fn signed_by(&self, origin: &Origin, microbatch: u32, port: &Port) -> bool {
        let rules = self.rules;
        let message = Origin::message(&rules.job, &rules.attempt, microbatch, port);
        origin.worker.verifies(&message, &origin.signature)
    }
}

/// Digests seen in earlier leaves of the claim, by microbatch (for what was received) and kind.
pub(super) type Known = BTreeMap<Seen, Value>;
pub(super) type Seen = (Option<u32>, PortKind);
pub(super) type Value = (Digest, Option<[u8; 64]>);

pub(super) fn received(microbatch: u32, input: &ClaimInput) -> (Seen, Value) {
    let signature = input.origin.as_ref().map(|origin| origin.signature);
    let key = (Some(microbatch), input.port.kind);
    (key, (input.port.digest, signature))
}

pub(super) fn made(port: &Port) -> (Seen, Value) {
    ((None, port.kind), (port.digest, None))
}

pub(super) fn same_as_forward(leaf: &Leaf, known: &Known) -> Result<(), Fault> {
    let activations = leaf
        .inputs
        .iter()
        .filter(|input| matches!(input.port.kind, PortKind::Activation(_)));
    for input in activations {
        let (key, value) = received(leaf.microbatch, input);
        if known.get(&key) != Some(&value) {
            return wrong(format!(
                "the {} starts from another activation than its forward pass",
                leaf_words(leaf)
            ));
        }
    }
    Ok(())
}

pub(super) fn own_inputs_are(leaf: &Leaf, known: &Known) -> Result<(), Fault> {
    let own = leaf.inputs.iter().filter(|input| input.origin.is_none());
    for input in own.filter(|input| matches!(input.port.kind, PortKind::Partial { .. })) {
        let made = known.get(&(None, input.port.kind));
        if made.map(|(digest, _)| *digest) != Some(input.port.digest) {
            return wrong(format!(
                "the {} adds up {:?} that no leaf gave",
                leaf_words(leaf),
                input.port.kind
            ));
        }
    }
    Ok(())
}

/// An update adds up what the norms were taken of.
pub(super) fn same_as_norm(update: &Leaf, norm: Option<&Leaf>) -> Result<(), Fault> {
    let is_sum = |input: &&ClaimInput| matches!(input.port.kind, PortKind::Partial { .. });
    let sums = update.inputs.iter().filter(is_sum);
    for input in sums {
        let known = norm.and_then(|norm| norm.input(input.port.kind));
        if known != Some(input) {
            return wrong(format!(
                "the {} starts from another {:?} than its norms",
                leaf_words(update),
                input.port.kind
            ));
        }
    }
    Ok(())
}

/// The caller has counted the leaves.
pub(super) fn next<'a>(leaves: &mut std::slice::Iter<'a, Leaf>) -> &'a Leaf {
    leaves.next().expect("as many leaves as were counted")
}
