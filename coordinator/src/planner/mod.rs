//! The planner: which worker holds which layers and computes which microbatches.
//!
//! It minimises the predicted time of a step over stages x replicas, the assignment of devices to
//! seats, the cut of the layers and the shares of the microbatches, subject to memory. Up to
//! [`EXACT_DEVICES`] devices the result is the optimum of the cost model; above, a local search.
//! Nothing here has an influence on any bit of a result.

#[cfg(test)]
mod brute_force;
mod cost;
mod error;
mod local;
mod memory;
mod pipeline;
mod replicas;
pub mod serving;
#[cfg(test)]
mod tests;

use concord_proto::client::{ModelProfile, PlanChoice};
use concord_proto::{JobId, Layers, Plan, Replica, WorkerId};

use cost::{Candidate, Problem};
pub use error::PlanError;
pub use serving::{ServingPipeline, ServingPlan, plan_serving};

/// Pools of at most this many devices are planned exactly: with 8 seats there are at most 8! ways
/// to fill them, which the bounds cut to a few thousand.
pub const EXACT_DEVICES: usize = 8;

/// Models of at most this many layers are cut exactly over several replicas; the number of cuts
/// grows with its third power. The deepest models that people tune have 126 layers.
pub const EXACT_LAYERS: u32 = 128;

/// A worker, as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
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
pub struct Request<'a> {
    /// The job.
    pub job: JobId,
    /// Counts the plans of the job.
    pub epoch: u32,
    /// Decoder layers of the model.
    pub layers: u32,
    /// Microbatches of a step, over all replicas.
    pub microbatches: u32,
    /// The model.
    pub profile: &'a ModelProfile,
    /// Fixed by the user, or left to the planner.
    pub choice: &'a PlanChoice,
    /// The workers at hand, in any order: the plan does not depend on it.
    pub devices: &'a [Device],
}

/// A plan and what is expected of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The plan. It holds [`Plan::validate`]; its workers' layers fit into their memory.
    pub plan: Plan,
    /// Predicted time of a step, in microseconds.
    pub step_micros: u64,
    /// How many microbatches may be in flight in one pipeline: at least one more than stages.
    pub depth: u32,
    /// Bytes that each stage is counted to take, with `depth` microbatches in flight.
    pub stage_bytes: Vec<u64>,
}

/// Plans a job.
///
/// # Errors
/// [`PlanError`], saying what would help: no devices, too few for a fixed plan, a choice that
/// contradicts the job, or too little memory.
pub fn plan(request: &Request) -> Result<Planned, PlanError> {
    let problem = Problem::new(request)?;
    let Some(mut best) = local::search(&problem) else {
        return Err(memory::remedy(&problem));
    };
    if problem.devices.len() <= EXACT_DEVICES {
        for shape in problem.shapes() {
            if shape.replicas == 1 {
                pipeline::search(&problem, shape.stages, &mut best);
            } else if problem.layers <= EXACT_LAYERS {
                replicas::search(&problem, shape, &mut best);
            }
        }
    }
    Ok(planned(request, &problem, &best))
}

fn planned(request: &Request, problem: &Problem, best: &Candidate) -> Planned {
    let stages = runs(&best.lengths).map(|(start, end)| Layers { start, end });
    let pipelines = best.seats.iter().zip(runs(&best.shares));
    let replicas = pipelines.map(|(seats, (start, end))| Replica {
        workers: seats.iter().map(|&seat| problem.devices[seat].id).collect(),
        start,
        end,
    });
    let depth = problem.depth(best);
    Planned {
        plan: Plan {
            job: request.job,
            epoch: request.epoch,
            stages: stages.collect(),
            replicas: replicas.collect(),
        },
        step_micros: (best.seconds * 1e6).ceil() as u64,
        depth,
        stage_bytes: problem.stage_bytes(&best.lengths, depth),
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
