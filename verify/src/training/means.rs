//! The rules on the scalars of a step: who reports which of them, and which loss and norm follow.

use std::ops::Range;

use concord_proto::ledger::Offence;
use concord_proto::session::Scalars;
use concord_proto::{Claim, F32Bits, JobSpec, MicrobatchLoss, Slot, TensorNorm, WorkerId};

use super::{Breach, StepRules, held_tensors};

/// Checks what a worker reports once its gradients are summed up: the losses of its microbatches
/// where it holds the last stage, and the squared norms of the tensors that it holds.
///
/// # Errors
/// [`Breach`] of `worker`.
pub fn check_computed(
    rules: &StepRules,
    worker: WorkerId,
    slot: Slot,
    losses: &[MicrobatchLoss],
    norms: &[TensorNorm],
) -> Result<(), Breach> {
    let is_last = slot.stage + 1 == rules.plan.stages.len();
    let run = match is_last {
        true => rules.run(slot.replica),
        false => 0..0,
    };
    let held = match rules.is_evaluation() {
        true => Vec::new(),
        false => held_tensors(rules.spec, rules.plan.stages[slot.stage]),
    };
    let what = if !losses_cover(losses, run) {
        "the losses are not those of its microbatches"
    } else if !norms.iter().map(|norm| norm.tensor).eq(held) {
        "the norms are not those of its tensors"
    } else if !are_numbers(losses) {
        "a loss is no number"
    } else {
        return Ok(());
    };
    Err(Breach {
        culprit: worker,
        offence: Offence::WrongClaim,
        evidence: format!("in {}, {what}", rules.words()),
        conviction: None,
    })
}

/// Whether all losses are finite: workers stop at others, which no rule could compare.
fn are_numbers(losses: &[MicrobatchLoss]) -> bool {
    losses.iter().all(|loss| loss.sum.get().is_finite())
}

/// Checks that scalars of a step have a loss for each microbatch and a norm for each trained tensor
/// (none for an evaluation), and count `targets` predicted tokens.
///
/// # Errors
/// A sentence about them ("they ...").
pub fn check_scalars(spec: &JobSpec, scalars: &Scalars, targets: u64) -> Result<(), &'static str> {
    if !losses_cover(&scalars.losses, 0..spec.microbatches_of(scalars.step)) {
        return Err("they have not one loss for each microbatch");
    }
    if !are_numbers(&scalars.losses) {
        return Err("they have a loss that is no number");
    }
    let tensors = scalars.norms.iter().map(|norm| norm.tensor);
    let with_norms = match spec.is_evaluation(scalars.step) {
        true => 0,
        false => spec.trainable.len() as u32,
    };
    if !tensors.eq(0..with_norms) {
        return Err("they have not one norm for each trained tensor");
    }
    if scalars.targets != targets {
        return Err("they count other tokens than the data has");
    }
    Ok(())
}

/// Checks that the claimed loss and norm are those that the scalars of the step give.
///
/// # Errors
/// [`Breach`] of `worker`.
pub(super) fn check_means(
    rules: &StepRules,
    worker: WorkerId,
    claim: &Claim,
) -> Result<(), Breach> {
    let Some(scalars) = rules.scalars else {
        return Ok(());
    };
    let zero = F32Bits::from(0.0);
    let (norm, is_evaluation) = (scalars.grad_norm(), rules.is_evaluation());
    let norm = norm.or(is_evaluation.then_some(zero));
    let follows = (scalars.mean_loss(), norm) == (Some(claim.loss), Some(claim.grad_norm));
    if follows && (!is_evaluation || claim.learning_rate == zero) {
        return Ok(());
    }
    Err(Breach {
        culprit: worker,
        offence: Offence::WrongClaim,
        evidence: format!(
            "in {}, its loss or gradient norm is not what the scalars of the step give",
            rules.words()
        ),
        conviction: None,
    })
}

/// Whether `losses` are exactly those of the microbatches of `run`, in order.
fn losses_cover(losses: &[MicrobatchLoss], run: Range<u32>) -> bool {
    losses.iter().map(|loss| loss.microbatch).eq(run)
}
