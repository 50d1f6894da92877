//! What all claims of a step must agree on, and the record that they give together.

use concord_proto::manifest::{StateEntry, state_roots};
use concord_proto::session::Scalars;
use concord_proto::{Claim, Digest, F32Bits, JobSpec, StepRecord, WorkerId, merkle};

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
}

/// Checks that all holders of a tensor name the same state of it.
///
/// # Errors
/// [`Disagreement`], the first one found.
pub fn check_agreement(spec: &JobSpec, claims: &[Claimed]) -> Result<(), Disagreement> {
    let mut seen: Vec<Option<(&Claimed, StateEntry)>> = vec![None; spec.trainable.len()];
    for claimed in claims {
        for state in &claimed.claim.state {
            let Some(slot) = seen.get_mut(state.tensor as usize) else {
                continue;
            };
            match slot {
                Some((earlier, entry)) if *entry != state.entry => {
                    let name = &spec.trainable[state.tensor as usize].name;
                    return Err(Disagreement {
                        first: earlier.worker,
                        second: claimed.worker,
                        what: format!("the state of {name}"),
                    });
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

/// The record of a step with these scalars, after the record `previous`; `after` is the
/// [`merged_state`] of its claims. `None` where the scalars lack losses, or norms of an update.
pub fn step_record(
    rules: &StepRules,
    previous: Digest,
    scalars: &Scalars,
    after: &[StateEntry],
) -> Option<StepRecord> {
    let (state_root, optimizer_root) = state_roots(after);
    let no_norm = || rules.is_evaluation().then_some(F32Bits::from(0.0));
    Some(StepRecord {
        job: rules.job,
        previous,
        step: rules.step,
        batch_root: merkle::root(rules.microbatches),
        loss: scalars.mean_loss()?,
        grad_norm: scalars.grad_norm().or_else(no_norm)?,
        learning_rate: rules.spec.learning_rate(rules.step),
        state_root,
        optimizer_root,
    })
}
