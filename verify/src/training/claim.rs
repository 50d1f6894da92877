//! The rules that one claim can be checked by on its own.

use std::collections::BTreeMap;

use concord_proto::ledger::Offence;
use concord_proto::limits::{NAME_BYTES_MAX, is_name};
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::{
    Claim, ClaimInput, Conviction, Digest, Leaf, LeafPhase, Origin, Port, PortKind, Signed,
    SignedError, Slot, TensorState, WorkerId, leaf_root,
};

use super::means::check_means;
use super::shape::Need;
use super::{Breach, StepRules, held_tensors, leaf_words, loss_digest};

/// Opens the claim of `worker` and checks it by all rules that need no other claim.
///
/// # Errors
/// [`Breach`], always of `worker`: inputs from other workers are checked by [`super::check_links`].
pub fn check_claim(
    rules: &StepRules,
    worker: WorkerId,
    signed: &Signed,
    leaves: &[Leaf],
) -> Result<Claim, Breach> {
    let breach = |offence, evidence| Breach {
        culprit: worker,
        offence,
        evidence,
        conviction: None,
    };
    let claim: Claim = signed.open().map_err(|error| match error {
        SignedError::Forged(_) => breach(Offence::Forgery, error.to_string()),
        SignedError::Malformed { .. } => breach(Offence::Malformed, error.to_string()),
    })?;
    if signed.signer != worker {
        let evidence = format!("the claim is signed by {}", signed.signer.short());
        return Err(breach(Offence::WrongClaim, evidence));
    }
    let found = (claim.job, claim.step, claim.epoch);
    if found != (rules.job, rules.step, rules.plan.epoch) {
        let evidence = format!(
            "asked for step {} of epoch {}, it claims step {} of epoch {} of {:?}",
            rules.step, rules.plan.epoch, claim.step, claim.epoch, claim.job
        );
        return Err(breach(Offence::Replay, evidence));
    }
    let checker = ClaimChecker { rules, worker };
    checker
        .check(&claim, leaves)
        .map_err(|(offence, evidence)| Breach {
            conviction: Some(Box::new(Conviction::BrokenRule {
                claim: signed.clone(),
                leaves: leaves.to_vec(),
                before: rules.before.to_vec(),
            })),
            ..breach(offence, format!("in {}, {evidence}", rules.words()))
        })?;
    check_means(rules, worker, &claim)?;
    Ok(claim)
}

struct ClaimChecker<'a> {
    rules: &'a StepRules<'a>,
    worker: WorkerId,
}

type Fault = (Offence, String);

fn wrong<T>(evidence: String) -> Result<T, Fault> {
    Err((Offence::WrongClaim, evidence))
}

impl ClaimChecker<'_> {
    fn check(&self, claim: &Claim, leaves: &[Leaf]) -> Result<(), Fault> {
        let rules = self.rules;
        let Some(slot) = rules.plan.slot(&self.worker) else {
            return wrong("the worker has no place in the plan".to_string());
        };
        if claim.plan != rules.plan_digest {
            return wrong("the claim names another plan".to_string());
        }
        if claim.arithmetic != rules.spec.arithmetic {
            return wrong(format!("arithmetic version {}", claim.arithmetic));
        }
        // It is printed for people, by whoever verifies the proof.
        if !is_name(&claim.device) {
            return wrong(format!(
                "the device name has over {NAME_BYTES_MAX} bytes or control characters"
            ));
        }
        if claim.leaf_root != leaf_root(leaves) {
            return wrong("the leaf root is not that of the leaves".to_string());
        }
        let held = held_tensors(rules.spec, rules.plan.stages[slot.stage]);
        if !claim.state.iter().map(|state| state.tensor).eq(held) {
            return wrong("the state is not that of the stage's tensors".to_string());
        }
        self.check_leaves(slot, claim, leaves)
    }

    fn check_leaves(&self, slot: Slot, claim: &Claim, leaves: &[Leaf]) -> Result<(), Fault> {
        let rules = self.rules;
        if rules.is_evaluation() {
            return self.check_evaluation(slot, claim, leaves);
        }
        let run = rules.run(slot.replica);
        let nodes = rules.nodes(slot.replica);
        let expected = 2 * (run.end - run.start) as usize + nodes.len() + 1;
        if leaves.len() != expected {
            return wrong(format!("{} leaves, not {expected}", leaves.len()));
        }
        let mut leaves = leaves.iter();
        let mut sums = Known::new();
        for microbatch in run.clone() {
            let leaf = next(&mut leaves);
            let (needs, outputs) = rules.forward(slot, microbatch);
            self.check_leaf(
                slot,
                leaf,
                (LeafPhase::Forward, microbatch),
                &needs,
                &outputs,
            )?;
            self.check_loss(leaf)?;
            sums.extend(leaf.inputs.iter().map(|input| received(microbatch, input)));
        }
        for microbatch in run.clone() {
            let leaf = next(&mut leaves);
            let (needs, outputs) = rules.backward(slot, microbatch);
            self.check_leaf(
                slot,
                leaf,
                (LeafPhase::Backward, microbatch),
                &needs,
                &outputs,
            )?;
            same_as_forward(leaf, &sums)?;
            sums.extend(leaf.outputs.iter().map(made));
        }
        let mut reduced = Known::new();
        for node in nodes {
            let leaf = next(&mut leaves);
            let (needs, outputs) = rules.reduce(slot, node);
            self.check_leaf(
                slot,
                leaf,
                (LeafPhase::Reduce, node.start),
                &needs,
                &outputs,
            )?;
            own_inputs_are(leaf, &sums)?;
            reduced.extend(leaf.outputs.iter().map(made));
        }
        let leaf = next(&mut leaves);
        let (needs, outputs) = rules.update(slot);
        self.check_leaf(slot, leaf, (LeafPhase::Update, 0), &needs, &outputs)?;
        own_inputs_are(leaf, &reduced)?;
        let after: Vec<StateEntry> = claim.state.iter().map(|state| state.entry).collect();
        let (values, moments) = state_roots(&after);
        let claimed = (leaf.output(PortKind::State), leaf.output(PortKind::Moments));
        if claimed == (Some(values), Some(moments)) {
            Ok(())
        } else {
            wrong("the update does not give the state that is claimed".to_string())
        }
    }

    /// An evaluation sends microbatches forward, and leaves the state as it is.
    fn check_evaluation(&self, slot: Slot, claim: &Claim, leaves: &[Leaf]) -> Result<(), Fault> {
        let rules = self.rules;
        let run = rules.run(slot.replica);
        if leaves.len() != run.len() {
            return wrong(format!("{} leaves, not {}", leaves.len(), run.len()));
        }
        for (microbatch, leaf) in run.zip(leaves) {
            let (needs, outputs) = rules.forward(slot, microbatch);
            let is = (LeafPhase::Forward, microbatch);
            self.check_leaf(slot, leaf, is, &needs, &outputs)?;
            self.check_loss(leaf)?;
        }
        let is_before =
            |state: &TensorState| rules.before.get(state.tensor as usize) == Some(&state.entry);
        match claim.state.iter().all(is_before) {
            true => Ok(()),
            false => wrong("an evaluation changes the state".to_string()),
        }
    }

    fn check_leaf(
        &self,
        slot: Slot,
        leaf: &Leaf,
        is: (LeafPhase, u32),
        needs: &[Need],
        outputs: &[PortKind],
    ) -> Result<(), Fault> {
        let layers = self.rules.plan.stages[slot.stage];
        if (leaf.phase, leaf.microbatch) != is || leaf.layers != layers {
            return wrong(format!(
                "a leaf is the {}, not {:?} of {} as its place demands",
                leaf_words(leaf),
                is.0,
                is.1
            ));
        }
        let mut found: Vec<PortKind> = leaf.outputs.iter().map(|port| port.kind).collect();
        let mut due = outputs.to_vec();
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
                // A backward leaf names what its forward leaf received: that signature was checked
                // there, and same_as_forward demands that it is the same.
                let repeated = leaf.phase == LeafPhase::Backward
                    && matches!(input.port.kind, PortKind::Activation(_));
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
        let message = Origin::message(&rules.job, rules.step, rules.plan.epoch, microbatch, port);
        origin.worker.verifies(&message, &origin.signature)
    }

    fn check_loss(&self, leaf: &Leaf) -> Result<(), Fault> {
        let losses = self.rules.scalars.map(|scalars| &scalars.losses);
        let known = losses.and_then(|losses| losses.get(leaf.microbatch as usize));
        match (leaf.output(PortKind::Loss), known) {
            (Some(digest), Some(loss)) if digest != loss_digest(loss.sum) => wrong(format!(
                "the {} gives another loss than was reported",
                leaf_words(leaf)
            )),
            _ => Ok(()),
        }
    }
}

/// Digests seen in earlier leaves of the claim, by microbatch (for what was received) and kind.
type Known = BTreeMap<Seen, Value>;
type Seen = (Option<u32>, PortKind);
type Value = (Digest, Option<[u8; 64]>);

fn received(microbatch: u32, input: &ClaimInput) -> (Seen, Value) {
    let signature = input.origin.as_ref().map(|origin| origin.signature);
    let key = (Some(microbatch), input.port.kind);
    (key, (input.port.digest, signature))
}

fn made(port: &Port) -> (Seen, Value) {
    ((None, port.kind), (port.digest, None))
}

fn same_as_forward(leaf: &Leaf, known: &Known) -> Result<(), Fault> {
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

fn own_inputs_are(leaf: &Leaf, known: &Known) -> Result<(), Fault> {
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

/// The caller has counted the leaves.
fn next<'a>(leaves: &mut std::slice::Iter<'a, Leaf>) -> &'a Leaf {
    leaves.next().expect("as many leaves as were counted")
}
