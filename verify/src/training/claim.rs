//! The rules that one claim can be checked by on its own, half by half.

use concord_proto::ledger::Offence;
use concord_proto::limits::{NAME_BYTES_MAX, is_name};
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::session::Scalars;
use concord_proto::{
    Claim, FirstHalf, JobId, Leaf, LeafPhase, PortKind, Signed, SignedError, Slot, TensorState,
    WorkerId, leaf_root,
};

use super::leaves::{
    Fault, Known, LeafChecker, made, next, own_inputs_are, received, same_as_forward, same_as_norm,
    wrong,
};
use super::means::StepValues;
use super::{Breach, SignedFirst, StepRules, held_tensors, leaf_words, loss_digest, norms_digest};

/// Whether a first half is of this step under this plan, and names another attempt at it, or another
/// history before it. Then its worker lies, or was shown that history by the coordinator: nobody
/// can tell, so nobody is convicted of it, nor of any rule that the claim would break here.
pub fn names_other_history(rules: &StepRules, signed: &Signed) -> bool {
    let Ok(half) = signed.open::<FirstHalf>() else {
        return false;
    };
    let place = (half.job, half.step, half.epoch);
    place == (rules.job, rules.step, rules.plan.epoch) && half.attempt != rules.attempt
}

/// Opens the first half of the claim of `worker` and checks it by all rules that need no other
/// claim. `values` is what it reported with it: its leaves must bind these.
///
/// # Errors
/// [`Breach`], always of `worker`: inputs from other workers are checked by [`super::check_links`].
pub fn check_first_half(
    rules: &StepRules,
    worker: WorkerId,
    signed: &Signed,
    leaves: &[Leaf],
    values: &StepValues,
) -> Result<FirstHalf, Breach> {
    let checker = ClaimChecker { rules, worker };
    let half: FirstHalf = checker.open(signed)?;
    checker.check_place(half.job, half.step, half.epoch)?;
    checker.named(checker.check_first(&half, leaves, values))?;
    Ok(half)
}

/// Opens the second half of the claim of `worker` and checks it by all rules that need no other
/// claim. Its first half must have passed [`check_first_half`].
///
/// # Errors
/// [`Breach`], always of `worker`.
pub fn check_claim(
    rules: &StepRules,
    worker: WorkerId,
    first: SignedFirst,
    scalars: &Scalars,
    signed: &Signed,
    leaves: &[Leaf],
) -> Result<Claim, Breach> {
    let checker = ClaimChecker { rules, worker };
    let claim: Claim = checker.open(signed)?;
    checker.check_place(claim.job, claim.step, claim.epoch)?;
    checker.named(checker.check_second(&claim, first, scalars, leaves))?;
    Ok(claim)
}

struct ClaimChecker<'a> {
    rules: &'a StepRules<'a>,
    worker: WorkerId,
}

impl ClaimChecker<'_> {
    fn breach(&self, offence: Offence, evidence: String) -> Breach {
        Breach {
            culprit: self.worker,
            offence,
            evidence,
        }
    }

    /// Says in which step a fault is, and whose it is.
    fn named(&self, checked: Result<(), Fault>) -> Result<(), Breach> {
        let words = |evidence: String| format!("in {}, {evidence}", self.rules.words());
        checked.map_err(|(offence, evidence)| self.breach(offence, words(evidence)))
    }

    fn open<T: borsh::BorshDeserialize + borsh::BorshSerialize>(
        &self,
        signed: &Signed,
    ) -> Result<T, Breach> {
        let opened = signed.open().map_err(|error| {
            let offence = match error {
                SignedError::Forged(_) => Offence::Forgery,
                SignedError::Malformed { .. } => Offence::Malformed,
            };
            self.breach(offence, error.to_string())
        })?;
        if signed.signer != self.worker {
            let evidence = format!("the claim is signed by {}", signed.signer.short());
            return Err(self.breach(Offence::WrongClaim, evidence));
        }
        Ok(opened)
    }

    fn check_place(&self, job: JobId, step: u32, epoch: u32) -> Result<(), Breach> {
        let rules = self.rules;
        if (job, step, epoch) == (rules.job, rules.step, rules.plan.epoch) {
            return Ok(());
        }
        let evidence = format!(
            "asked for step {} of epoch {}, it claims step {step} of epoch {epoch} of {job:?}",
            rules.step, rules.plan.epoch
        );
        Err(self.breach(Offence::Replay, evidence))
    }

    fn slot(&self) -> Result<Slot, Fault> {
        let slot = self.rules.plan.slot(&self.worker);
        slot.map_or_else(
            || wrong("the worker has no place in the plan".to_string()),
            Ok,
        )
    }

    fn leaf_checker(&self, slot: Slot) -> LeafChecker<'_> {
        LeafChecker {
            rules: self.rules,
            layers: self.rules.plan.stages[slot.stage],
        }
    }

    fn check_first(
        &self,
        half: &FirstHalf,
        leaves: &[Leaf],
        values: &StepValues,
    ) -> Result<(), Fault> {
        let (rules, slot) = (self.rules, self.slot()?);
        if half.plan != rules.plan_digest {
            return wrong("the claim names another plan".to_string());
        }
        if half.arithmetic != rules.spec.arithmetic {
            return wrong(format!("arithmetic version {}", half.arithmetic));
        }
        if half.leaf_root != leaf_root(leaves) {
            return wrong("the leaf root is not that of the leaves".to_string());
        }
        values.check_coverage(rules, slot)?;
        let run = rules.run(slot.replica);
        let nodes = rules.nodes(slot.replica);
        let expected = match rules.is_evaluation() {
            true => run.len(),
            false => 2 * run.len() + nodes.len() + 1,
        };
        if leaves.len() != expected {
            return wrong(format!("{} leaves, not {expected}", leaves.len()));
        }
        let (checker, mut leaves) = (self.leaf_checker(slot), leaves.iter());
        let mut known = Known::new();
        for microbatch in run.clone() {
            let leaf = next(&mut leaves);
            let shape = rules.forward(slot, microbatch);
            checker.check(leaf, (LeafPhase::Forward, microbatch), &shape)?;
            check_loss(leaf, values)?;
            known.extend(leaf.inputs.iter().map(|input| received(microbatch, input)));
        }
        if rules.is_evaluation() {
            return Ok(());
        }
        for microbatch in run {
            let leaf = next(&mut leaves);
            let shape = rules.backward(slot, microbatch);
            checker.check(leaf, (LeafPhase::Backward, microbatch), &shape)?;
            same_as_forward(leaf, &known)?;
            known.extend(leaf.outputs.iter().map(made));
        }
        let mut reduced = Known::new();
        for node in nodes {
            let leaf = next(&mut leaves);
            let shape = rules.reduce(slot, node);
            checker.check(leaf, (LeafPhase::Reduce, node.start), &shape)?;
            own_inputs_are(leaf, &known)?;
            reduced.extend(leaf.outputs.iter().map(made));
        }
        let leaf = next(&mut leaves);
        checker.check(leaf, (LeafPhase::Norm, 0), &rules.norm(slot))?;
        own_inputs_are(leaf, &reduced)?;
        match leaf.output(PortKind::Norms) == Some(norms_digest(&values.norms)) {
            true => Ok(()),
            false => wrong("the norms of its leaf are not those that were reported".to_string()),
        }
    }

    fn check_second(
        &self,
        claim: &Claim,
        first: SignedFirst,
        scalars: &Scalars,
        leaves: &[Leaf],
    ) -> Result<(), Fault> {
        let (rules, slot) = (self.rules, self.slot()?);
        if claim.first_half != first.digest {
            return wrong("the claim names another first half".to_string());
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
        let expected = usize::from(!rules.is_evaluation());
        if leaves.len() != expected {
            return wrong(format!(
                "{} leaves of updates, not {expected}",
                leaves.len()
            ));
        }
        match leaves.first() {
            None => self.is_before(claim),
            Some(leaf) => {
                let shape = rules.update(slot, scalars);
                self.leaf_checker(slot)
                    .check(leaf, (LeafPhase::Update, 0), &shape)?;
                same_as_norm(leaf, first.leaves.last())?;
                gives_state(leaf, claim)
            }
        }
    }

    /// An evaluation leaves the state as it is.
    fn is_before(&self, claim: &Claim) -> Result<(), Fault> {
        let before = self.rules.before;
        let is_before =
            |state: &TensorState| before.get(state.tensor as usize) == Some(&state.entry);
        match claim.state.iter().all(is_before) {
            true => Ok(()),
            false => wrong("an evaluation changes the state".to_string()),
        }
    }
}

fn check_loss(leaf: &Leaf, values: &StepValues) -> Result<(), Fault> {
    let Some(digest) = leaf.output(PortKind::Loss) else {
        return Ok(());
    };
    let mut losses = values.losses.iter();
    let loss = losses.find(|loss| loss.microbatch == leaf.microbatch);
    match loss.is_some_and(|loss| loss_digest(loss.sum) == digest) {
        true => Ok(()),
        false => wrong(format!(
            "the {} gives another loss than was reported",
            leaf_words(leaf)
        )),
    }
}

fn gives_state(leaf: &Leaf, claim: &Claim) -> Result<(), Fault> {
    let after: Vec<StateEntry> = claim.state.iter().map(|state| state.entry).collect();
    let (values, moments) = state_roots(&after);
    let claimed = (leaf.output(PortKind::State), leaf.output(PortKind::Moments));
    match claimed == (Some(values), Some(moments)) {
        true => Ok(()),
        false => wrong("the update does not give the state that is claimed".to_string()),
    }
}
