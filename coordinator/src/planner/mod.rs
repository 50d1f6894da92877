//! The planner: which worker holds which layers and computes which microbatches.
//!
//! Layers stay whole where that fits; where it does not, they are cut between their experts.
//!
//! It minimises the predicted time of a step over stages x replicas, the assignment of devices to
//! slots, the cut of the layers and the shares of the microbatches, subject to memory. Up to
//! [`EXACT_DEVICES`] devices (and [`EXACT_LAYERS`] layers, where there are several replicas) the
//! result is the optimum of the cost model; above, it comes from a local search. Nothing here has
//! an influence on any bit of a result.

#[cfg(test)]
mod brute_force;
mod choice;
mod cost;
mod error;
mod grain;
mod local;
mod memory;
#[cfg(test)]
mod open_tests;
mod pipeline;
mod replicas;
pub mod serving;
#[cfg(test)]
mod tests;

use concord_proto::client::{ModelProfile, PlanChoice};
use concord_proto::{JobId, Plan, Replica, WorkerId};

pub use choice::check_choice;
use cost::{Candidate, Problem};
pub use error::PlanError;
use grain::Grain;
pub use serving::{ServingPipeline, ServingPlan, plan_serving};

/// Pools of at most this many devices are planned exactly: with 8 slots there are at most 8! ways
/// to fill them, which the bounds cut to a few thousand.
pub const EXACT_DEVICES: usize = 8;

/// Models of at most this many layers are cut exactly over several replicas; the number of cuts
/// grows with its third power. The deepest models that people tune have 126 layers.
pub const EXACT_LAYERS: u32 = 128;

/// Models of more parts of layers are cut by the local search alone.
const EXACT_PARTS: u32 = 1_024;

/// A worker, as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerDevice {
    /// Its key. Distinct for distinct devices.
    pub id: WorkerId,
    /// What it says its device is.
    pub name: String,
    /// Multiply-adds a second, as measured.
    pub macs_per_second: u64,
    /// Memory that the worker may use, in bytes.
    pub memory_bytes: u64,
}

/// What to plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// The job.
    pub job: JobId,
    /// Counts the plans of the job.
    pub epoch: u32,
    /// Decoder layers of the model.
    pub layers: u32,
    /// Microbatches of a step, over all replicas.
    pub microbatches: u32,
    /// What an evaluation computes, in microbatches of a step; 0 where there is none.
    pub evaluation_microbatches: u32,
    /// The model.
    pub profile: &'a ModelProfile,
    /// Fixed by the user, or left to the planner.
    pub choice: &'a PlanChoice,
    /// The workers at hand, in any order: the plan does not depend on it.
    pub devices: &'a [PlannerDevice],
}

/// A plan and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPlan {
    /// The plan. It holds [`Plan::validate`]; its workers' layers fit into their memory.
    pub plan: Plan,
    /// Predicted time of a step, in microseconds.
    pub step_micros: u64,
    /// How many microbatches may be in flight in one pipeline: at least one more than stages.
    pub depth: u32,
    /// Bytes that each stage is counted to take, with `depth` microbatches in flight.
    pub stage_bytes: Vec<u64>,
    /// Steps whose inputs checkers may ask for at the same time, the one being done with them: at
    /// least 2, which `stage_bytes` counts, and more where all stages have memory for them.
    pub open_steps: u32,
}

/// Plans a job.
///
/// ```
/// use concord_coordinator::planner::{PlanRequest, PlannerDevice, plan};
/// use concord_proto::client::{ModelProfile, PlanChoice};
/// use concord_proto::{Digest, ExpertCuts, JobId, PublicKey};
///
/// let profile = ModelProfile {
///     layer_macs: 1_000_000,
///     head_macs: 0,
///     layer_bytes: 1_000,
///     embed_bytes: 0,
///     head_bytes: 0,
///     shared_bytes: 0,
///     layer_state_bytes: 1_000,
///     layer_gradient_bytes: 250,
///     layer_activation_bytes: 100,
///     workspace_bytes: 0,
///     boundary_bytes: 10,
///     microbatch_tokens: 64,
///     backward_percent: 200,
///     cuts: ExpertCuts::default(),
/// };
/// // Neither has room for four layers.
/// let devices = [1, 2].map(|number| PlannerDevice {
///     id: PublicKey([number; 32]),
///     name: "cpu".to_string(),
///     macs_per_second: 1_000_000_000,
///     memory_bytes: 5_000,
/// });
/// let planned = plan(&PlanRequest {
///     job: JobId(Digest::default()),
///     epoch: 1,
///     layers: 4,
///     microbatches: 4,
///     evaluation_microbatches: 0,
///     profile: &profile,
///     choice: &PlanChoice::Auto,
///     devices: &devices,
/// })?;
/// assert_eq!((planned.plan.stages.len(), planned.plan.replicas.len()), (2, 1));
/// # Ok::<(), concord_coordinator::planner::PlanError>(())
/// ```
///
/// # Errors
/// [`PlanError`], saying what would help: no devices, too few for a fixed plan, a choice that
/// contradicts the job, or too little memory.
pub fn plan(request: &PlanRequest) -> Result<TrainingPlan, PlanError> {
    let whole = Grain::whole(request.layers, &request.profile.cuts);
    grain::first_that_fits(whole, |grain| plan_in(request, grain))
}

fn plan_in(request: &PlanRequest, grain: Grain) -> Result<TrainingPlan, PlanError> {
    let in_units = PlanRequest {
        layers: grain.units(),
        profile: &grain.profile(request.profile),
        ..*request
    };
    let problem = Problem::new(&in_units)?;
    let Some(mut best) = local::search(&problem) else {
        return Err(memory::remedy(&problem));
    };
    let is_small = !grain.cuts_layers() || problem.layers <= EXACT_PARTS;
    if is_small && problem.devices.len() <= EXACT_DEVICES {
        for shape in problem.shapes() {
            if shape.replicas == 1 {
                pipeline::search(&problem, shape.stages, &mut best);
            } else if problem.layers <= EXACT_LAYERS {
                replicas::search(&problem, shape, &mut best);
            }
        }
    }
    Ok(planned(request, grain, &problem, &best))
}

fn planned(
    request: &PlanRequest,
    grain: Grain,
    problem: &Problem,
    best: &Candidate,
) -> TrainingPlan {
    let stages = runs(&best.lengths).map(|units| grain.stage(units));
    let pipelines = best.slots.iter().zip(runs(&best.shares));
    let replicas = pipelines.map(|(slots, (start, end))| Replica {
        workers: slots.iter().map(|&slot| problem.devices[slot].id).collect(),
        start,
        end,
    });
    let depth = problem.depth(best);
    TrainingPlan {
        plan: Plan {
            job: request.job,
            epoch: request.epoch,
            stages: stages.collect(),
            replicas: replicas.collect(),
        },
        step_micros: (best.seconds * 1e6).ceil() as u64,
        depth,
        stage_bytes: problem.stage_bytes(&best.lengths, depth),
        open_steps: problem.open_steps(best, depth),
    }
}

/// Contiguous runs of these lengths, from 0.
fn runs(lengths: &[u32]) -> impl Iterator<Item = (u32, u32)> + '_ {
    lengths.iter().scan(0, |edge, length| {
        let start = *edge;
        *edge += length;
        Some((start, *edge))
    })
}
