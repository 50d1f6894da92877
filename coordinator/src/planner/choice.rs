//! Whether a job can be cut as its user chose, in any pool.

use concord_proto::client::{ModelProfile, PlanChoice};

use super::PlanError;
use super::grain::Grain;

/// Checks a choice against a job of so many layers and microbatches, whatever the workers are.
///
/// # Errors
/// [`PlanError`] where no pool could do the job so: a stage or a replica would have nothing to do,
/// or the shares are not those of its microbatches.
pub fn check_choice(
    choice: &PlanChoice,
    layers: u32,
    microbatches: u32,
    profile: &ModelProfile,
) -> Result<(), PlanError> {
    let mut grain = Grain::whole(layers, &profile.cuts);
    while let Some(finer) = grain.finer() {
        grain = finer;
    }
    check(choice, grain.units(), microbatches)
}

/// The same for what the planner deals out: so many layers or parts of them.
pub(super) fn check(choice: &PlanChoice, layers: u32, microbatches: u32) -> Result<(), PlanError> {
    let PlanChoice::Fixed {
        stages,
        replicas,
        shares,
    } = choice
    else {
        return Ok(());
    };
    let (stages, replicas) = (*stages, *replicas);
    if stages == 0 || replicas == 0 {
        return Err(PlanError::EmptyPlan { stages, replicas });
    }
    if stages > layers {
        return Err(PlanError::TooManyStages { stages, layers });
    }
    if replicas > microbatches {
        return Err(PlanError::TooManyReplicas {
            replicas,
            microbatches,
        });
    }
    let dealt: u64 = shares.iter().copied().map(u64::from).sum();
    let fits = shares.len() == replicas as usize
        && dealt == u64::from(microbatches)
        && !shares.contains(&0);
    match shares.is_empty() || fits {
        true => Ok(()),
        false => Err(PlanError::Shares {
            shares: shares.clone(),
            replicas,
            microbatches,
        }),
    }
}
