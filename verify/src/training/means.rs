//! The rules on the losses and norms of a step: who reports which of them, and what follows.

use std::ops::Range;

use concord_proto::session::Scalars;
use concord_proto::{Digest, JobSpec, MicrobatchLoss, Plan, Slot, TensorNorm, WorkerId};

use super::leaves::{Fault, wrong};
use super::{StepRules, held_tensors};

/// What a worker reports with the first half of its claim: the losses of its microbatches where it
/// holds the last stage, and the squared norms of the tensors that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepValues {
    pub losses: Vec<MicrobatchLoss>,
    pub norms: Vec<TensorNorm>,
}

/// Which losses and norms a worker has to report, by its place in the plan.
fn due(spec: &JobSpec, plan: &Plan, slot: Slot, step: u32) -> (Range<u32>, Vec<u32>) {
    let replica = &plan.replicas[slot.replica];
    let run = match slot.stage + 1 == plan.stages.len() {
        true => spec.run_of(step, replica.start, replica.end),
        false => 0..0,
    };
    let held = match spec.is_evaluation(step) {
        true => Vec::new(),
        false => held_tensors(spec, plan.stages[slot.stage]),
    };
    (run, held)
}

/// The values that the worker at `slot` must have reported where the scalars of the step are these.
pub fn values_of(spec: &JobSpec, plan: &Plan, slot: Slot, scalars: &Scalars) -> StepValues {
    let (run, held) = due(spec, plan, slot, scalars.step);
    let losses = scalars.losses.iter();
    let norms = scalars.norms.iter();
    StepValues {
        losses: losses
            .filter(|loss| run.contains(&loss.microbatch))
            .copied()
            .collect(),
        norms: norms
            .filter(|norm| held.binary_search(&norm.tensor).is_ok())
            .copied()
            .collect(),
    }
}

impl StepValues {
    /// Checks that they are of the microbatches and tensors that the worker at `slot` has.
    pub(super) fn check_coverage(&self, rules: &StepRules, slot: Slot) -> Result<(), Fault> {
        let (run, held) = due(rules.spec, rules.plan, slot, rules.step);
        if !losses_cover(&self.losses, run) {
            return wrong("the losses are not those of its microbatches".to_string());
        }
        match self.norms.iter().map(|norm| norm.tensor).eq(held) {
            true => Ok(()),
            false => wrong("the norms are not those of its tensors".to_string()),
        }
    }
}

/// Names a value of the scalars that is no finite number, or a squared norm below 0, or the mean
/// that they give together, if there is one. Such a value is no offence: where a training diverges,
/// all who compute it get it.
pub fn not_a_number(spec: &JobSpec, scalars: &Scalars) -> Option<String> {
    let loss = scalars
        .losses
        .iter()
        .find(|loss| !loss.sum.get().is_finite());
    if let Some(loss) = loss {
        let (index, value) = (loss.microbatch, loss.sum);
        return Some(format!("the loss of microbatch {index} is {value:?}"));
    }
    let is_norm = |norm: &&TensorNorm| {
        let squared = norm.squared.get();
        squared.is_finite() && squared >= 0.0
    };
    if let Some(norm) = scalars.norms.iter().find(|norm| !is_norm(norm)) {
        let name = spec.trainable.get(norm.tensor as usize);
        let name = name.map_or("a tensor", |tensor| &tensor.name);
        return Some(format!(
            "the squared gradient norm of {name} is {:?}",
            norm.squared
        ));
    }
    let means = [
        ("mean loss", scalars.mean_loss()),
        ("gradient norm", scalars.grad_norm()),
    ];
    let mut found = means
        .into_iter()
        .filter_map(|(what, value)| Some((what, value?)));
    let (what, value) = found.find(|(_, value)| !value.get().is_finite())?;
    Some(format!("the {what} is {value:?}"))
}

/// Checks that scalars of a step have a loss for each microbatch and a norm for each trained tensor
/// (none for an evaluation), all of them numbers, name these first halves, and count `targets`
/// predicted tokens.
///
/// # Errors
/// A sentence about them ("they ...").
pub fn check_scalars(
    spec: &JobSpec,
    scalars: &Scalars,
    first_halves: &[Digest],
    targets: u64,
) -> Result<(), String> {
    check_form(spec, scalars)?;
    if scalars.first_halves != first_halves {
        return Err("they name other first halves than the workers signed".to_string());
    }
    if let Some(what) = not_a_number(spec, scalars) {
        return Err(format!("they have no number: {what}"));
    }
    if scalars.targets != targets {
        return Err("they count other tokens than the data has".to_string());
    }
    Ok(())
}

fn check_form(spec: &JobSpec, scalars: &Scalars) -> Result<(), String> {
    if !losses_cover(&scalars.losses, 0..spec.microbatches_of(scalars.step)) {
        return Err("they have not one loss for each microbatch".to_string());
    }
    let tensors = scalars.norms.iter().map(|norm| norm.tensor);
    let with_norms = match spec.is_evaluation(scalars.step) {
        true => 0,
        false => spec.trainable.len() as u32,
    };
    match tensors.eq(0..with_norms) {
        true => Ok(()),
        false => Err("they have not one norm for each trained tensor".to_string()),
    }
}

/// Checks that scalars that a worker was sent hold what it reported, and name the first half that
/// it signed: otherwise whoever sent them has altered something.
///
/// # Errors
/// A sentence about them ("they ...").
pub fn check_own_values(
    spec: &JobSpec,
    plan: &Plan,
    worker: WorkerId,
    scalars: &Scalars,
    (first_half, values): (Digest, &StepValues),
) -> Result<(), String> {
    check_form(spec, scalars)?;
    let mut named = plan.workers().zip(&scalars.first_halves);
    let own = named.find(|((_, id), _)| *id == worker);
    if scalars.first_halves.len() != plan.workers().count()
        || own.is_none_or(|(_, digest)| *digest != first_half)
    {
        return Err("they do not name the first half of its claim".to_string());
    }
    let Some(slot) = plan.slot(&worker) else {
        return Err("they are of a plan that it has no place in".to_string());
    };
    let sent = values_of(spec, plan, slot, scalars);
    if sent.losses != values.losses {
        return Err("they have other losses of its microbatches than it reported".to_string());
    }
    match sent.norms == values.norms {
        true => Ok(()),
        false => Err("they have other gradient norms of its tensors than it reported".to_string()),
    }
}

/// Whether `losses` are exactly those of the microbatches of `run`, in order.
fn losses_cover(losses: &[MicrobatchLoss], run: Range<u32>) -> bool {
    losses.iter().map(|loss| loss.microbatch).eq(run)
}
