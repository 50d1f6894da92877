//! The rules that one claim can be checked by on its own, half by half.

use concord_proto::AttemptId;
use concord_proto::ledger::Offence;
use concord_proto::limits::{NAME_BYTES_MAX, is_name};
use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::session::Scalars;
use concord_proto::{
    Claim, Conviction, Digest, FirstHalf, JobId, Leaf, LeafPhase, PortKind, Signed, SignedError,
    SignedHalf, Slot, TensorState, WorkerId, first_half_digest, leaf_root,
};

use super::leaves::{
    Fault, Known, LeafChecker, made, next, own_inputs_are, received, same_as_forward, same_as_norm,
    wrong,
};
use super::means::StepValues;
use super::{Breach, SignedFirst, StepRules, held_tensors, leaf_words, loss_digest, norms_digest};

/// Whether a first half is of this step under this plan, and names another attempt at it, or
/// another history before it. Then its worker lies, or was shown that history by the coordinator:
/// nobody can tell, so nobody is convicted of it, nor of any rule that the claim would break here.
/// `known` are the entries of all attempts so far, by number.
pub fn names_other_history(rules: &StepRules, known: &[Digest], signed: &Signed) -> bool {
    let Ok(half) = signed.open::<FirstHalf>() else {
        return false;
    };
    let place = (half.job, half.step, half.epoch);
    let is_known = |id: &AttemptId| known.get(id.number as usize) == Some(&id.entry);
    place == (rules.job, rules.step, rules.plan.epoch)
        && (half.attempt != rules.attempt || !half.previous.iter().all(is_known))
}

/// Opens the first half of the claim of `worker` and checks it by all rules that need no other
/// claim. `values` is what it reported with it: its leaves must bind these.
///
/// # Errors
/// [`Breach`], always of `worker`: inputs from other workers are checked by [`super::check_links`].
/// Nothing shows one of the values to others, because they are not signed.
pub fn check_first_half(
    rules: &StepRules,
    worker: WorkerId,
    signed: &Signed,
    leaves: &[Leaf],
    values: &StepValues,
) -> Result<FirstHalf, Breach> {
    let half = check_signed_first(rules, worker, SignedFirst { signed, leaves })?;
    let checker = ClaimChecker { rules, worker };
    checker.named(checker.check_values(leaves, values))?;
    Ok(half)
}

/// As [`check_first_half`], by what the worker has signed alone.
pub(super) fn check_signed_first(
    rules: &StepRules,
    worker: WorkerId,
    first: SignedFirst,
) -> Result<FirstHalf, Breach> {
    let checker = ClaimChecker { rules, worker };
    let half: FirstHalf = checker.open(first.signed)?;
    checker.check_place(half.job, half.step, half.epoch)?;
    let checked = checker.named(checker.check_first(&half, first.leaves));
    checked.map_err(|breach| checker.shown(breach, first, None))?;
    Ok(half)
}

/// Opens the second half of the claim of `worker` and checks it by all rules that need no other
/// claim. Its first half must have passed [`check_first_half`].
///
/// # Errors
/// [`Breach`], always of `worker`. Nothing shows to others which scalars it was sent.
pub fn check_claim(
    rules: &StepRules,
    worker: WorkerId,
    first: SignedFirst,
    scalars: &Scalars,
    signed: &Signed,
    leaves: &[Leaf],
) -> Result<Claim, Breach> {
    let claim = check_signed_claim(rules, worker, first, signed, leaves)?;
    let checker = ClaimChecker { rules, worker };
    checker.named(starts_from(leaves, scalars))?;
    Ok(claim)
}

/// As [`check_claim`], by what the worker has signed alone.
pub(super) fn check_signed_claim(
    rules: &StepRules,
    worker: WorkerId,
    first: SignedFirst,
    signed: &Signed,
    leaves: &[Leaf],
) -> Result<Claim, Breach> {
    let checker = ClaimChecker { rules, worker };
    let claim: Claim = checker.open(signed)?;
    checker.check_place(claim.job, claim.step, claim.epoch)?;
    let checked = checker.named(checker.check_second(&claim, first, leaves));
    checked.map_err(|breach| checker.shown(breach, first, Some((signed, leaves))))?;
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
            conviction: None,
        }
    }

    /// The breach, with what shows it to others.
    fn shown(
        &self,
        breach: Breach,
        first: SignedFirst,
        second: Option<(&Signed, &[Leaf])>,
    ) -> Breach {
        let half = |signed: &Signed, leaves: &[Leaf]| SignedHalf {
            signed: signed.clone(),
            leaves: leaves.to_vec(),
        };
        let conviction = Conviction::BrokenRule {
            first: half(first.signed, first.leaves),
            second: second.map(|(signed, leaves)| half(signed, leaves)),
            before: self.rules.before.to_vec(),
        };
        Breach {
            conviction: Some(Box::new(conviction)),
            ..breach
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

    fn check_first(&self, half: &FirstHalf, leaves: &[Leaf]) -> Result<(), Fault> {
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
        own_inputs_are(leaf, &reduced)
    }

    /// Compares what was reported with the leaves, which have been checked.
    fn check_values(&self, leaves: &[Leaf], values: &StepValues) -> Result<(), Fault> {
        values.check_coverage(self.rules, self.slot()?)?;
        let forward = leaves
            .iter()
            .filter(|leaf| leaf.phase == LeafPhase::Forward);
        for leaf in forward {
            check_loss(leaf, values)?;
        }
        let mut norms = leaves
            .iter()
            .filter_map(|leaf| leaf.output(PortKind::Norms));
        let digest = norms_digest(&values.norms);
        match norms.all(|norms| norms == digest) {
            true => Ok(()),
            false => wrong("the norms of its leaf are not those that were reported".to_string()),
        }
    }

    fn check_second(
        &self,
        claim: &Claim,
        first: SignedFirst,
        leaves: &[Leaf],
    ) -> Result<(), Fault> {
        let (rules, slot) = (self.rules, self.slot()?);
        if claim.first_half != first_half_digest(first.signed) {
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
                let shape = rules.update(slot);
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

/// An update starts from the scalars of the step.
fn starts_from(leaves: &[Leaf], scalars: &Scalars) -> Result<(), Fault> {
    let inputs = leaves
        .iter()
        .filter_map(|leaf| leaf.input(PortKind::Scalars));
    let digest = scalars.digest();
    match inputs
        .map(|input| input.port.digest)
        .find(|found| *found != digest)
    {
        None => Ok(()),
        Some(other) => wrong(format!(
            "the update starts from other scalars than it was sent: {} instead of {}",
            other.short(),
            digest.short()
        )),
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
