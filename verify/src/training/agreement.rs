//! What all claims of a step must agree on, and the record that they give together.

use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::{Claim, Digest, JobSpec, StepRecord, WorkerId, merkle};

use super::{Claimed, StepRules};

/// Two claims that differ where they must agree. Only computing the step again shows which is
/// right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("workers {} and {} differ in {what}", first.short(), second.short())]
pub struct Disagreement {
    /// The earlier one in the plan's order.
    pub first: WorkerId,
    /// The other.
    pub second: WorkerId,
    pub what: String,
    /// Whether it is the state after the step, which re-running the two updates decides.
    pub in_state: bool,
}

/// Checks that all claims name the same loss, norm and learning rate, and that all holders of a
/// tensor name the same state of it.
///
/// # Errors
/// [`Disagreement`], the first one found.
pub fn check_agreement(spec: &JobSpec, claims: &[Claimed]) -> Result<(), Disagreement> {
    let differ = |first: &Claimed, second: &Claimed, what: String, in_state| Disagreement {
        first: first.worker,
        second: second.worker,
        what,
        in_state,
    };
    let scalars = |claim: &Claim| (claim.loss, claim.grad_norm, claim.learning_rate);
    let Some(first) = claims.first() else {
        return Ok(());
    };
    let other = claims
        .iter()
        .find(|other| scalars(other.claim) != scalars(first.claim));
    if let Some(other) = other {
        let what = "loss, gradient norm or learning rate".to_string();
        return Err(differ(first, other, what, false));
    }
    let mut seen: Vec<Option<(&Claimed, StateEntry)>> = vec![None; spec.trainable.len()];
    for claimed in claims {
        for state in &claimed.claim.state {
            let Some(slot) = seen.get_mut(state.tensor as usize) else {
                continue;
            };
            match slot {
                Some((earlier, entry)) if *entry != state.entry => {
                    let name = &spec.trainable[state.tensor as usize].name;
                    let what = format!("the state of {name}");
                    return Err(differ(earlier, claimed, what, true));
                }
                _ => *slot = Some((claimed, state.entry)),
            }
        }
    }
    Ok(())
}

/// The state after the step, one entry for each trained tensor, or `None` where a tensor is in no
/// claim.
pub fn merged_state(spec: &JobSpec, claims: &[&Claim]) -> Option<Vec<StateEntry>> {
    let mut entries = vec![None; spec.trainable.len()];
    for state in claims.iter().flat_map(|claim| &claim.state) {
        *entries.get_mut(state.tensor as usize)? = Some(state.entry);
    }
    entries.into_iter().collect()
}

/// The record of a step whose claims agree; `after` is their [`merged_state`].
pub fn step_record(
    rules: &StepRules,
    previous: Digest,
    claim: &Claim,
    after: &[StateEntry],
) -> StepRecord {
    let (state_root, optimizer_root) = state_roots(after);
    StepRecord {
        job: rules.job,
        previous,
        step: rules.step,
        batch_root: merkle::root(rules.microbatches),
        loss: claim.loss,
        grad_norm: claim.grad_norm,
        learning_rate: claim.learning_rate,
        state_root,
        optimizer_root,
    }
}
