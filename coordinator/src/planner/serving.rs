//! Which workers hold which layers of a model that is served.
//!
//! A pipeline has as few stages as fit into memory: each one more costs a hop for every token. Its
//! layers are cut so that no stage holds up the others. What devices are left make more pipelines,
//! or stand by. Nothing here has an influence on any bit of an answer.

mod cost;
mod cut;
mod search;
mod standby;
#[cfg(test)]
mod tests;

use concord_proto::Layers;
use concord_proto::serving::ServingProfile;

use super::grain::{self, Grain};
use super::{PlanError, PlannerDevice};
use cost::Costs;
use cut::StageCut;

/// Pages of keys and values that a pipeline has at least.
const PAGES_MIN: u32 = 16;

/// Pages of keys and values that a pipeline has at most, where no number is asked for.
const PAGES_MAX: u32 = 4_096;

/// Pages that cuts are looked for with room for: few pages make small batches, and room for many
/// may take slow devices.
const PAGES_WANTED: [u32; 3] = [512, 128, PAGES_MIN];

/// A further pipeline is opened if it is at least this part as fast as the first: a request
/// that is sent to a slower one would wait. Its devices stand by instead.
const SLOWEST_PIPELINE: f64 = 0.5;

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingPipeline {
    /// Layers of each stage, in order.
    pub stages: Vec<Layers>,
    /// The device of each stage, by index.
    pub devices: Vec<usize>,
    /// Pages of keys and values.
    pub pages: u32,
    /// Which devices stand by, and for which layers.
    pub standby: Vec<(usize, Vec<Layers>)>,
}

/// Who holds what, and what is expected of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServingPlan {
    /// The pipelines, the fastest first.
    pub pipelines: Vec<ServingPipeline>,
    /// Devices without a slot, that could take one.
    pub spare: Vec<usize>,
    /// Microseconds until the first token of a prompt of 512 tokens, in the first pipeline.
    pub first_token_micros: u64,
    /// Tokens a second of one answer alone, in the first pipeline.
    pub tokens_per_second_one: f64,
    /// Tokens a second of all answers, when there are many.
    pub tokens_per_second_all: f64,
    /// Devices that cannot help, and why.
    pub rejected: Vec<(usize, String)>,
}

/// Cuts a model over devices. 0 `stages`, `pipelines` or `pages` leave the number to the planner;
/// where as many pages as asked for do not fit, there are fewer.
///
/// # Errors
/// [`PlanError`], saying what would help: no devices, too few or too small ones, or more stages
/// than layers.
pub fn plan_serving(
    devices: &[PlannerDevice],
    profile: &ServingProfile,
    layers: u32,
    stages: u32,
    pipelines: u32,
    pages: u32,
) -> Result<ServingPlan, PlanError> {
    let whole = Grain::whole(layers, &profile.cuts);
    grain::first_that_fits(whole, |grain| {
        check(devices, grain.units(), stages, pipelines)?;
        let costs = Costs::new(devices, profile, grain);
        plan_in(&costs, stages, pipelines, pages)
    })
}

fn plan_in(
    costs: &Costs,
    stages: u32,
    pipelines: u32,
    pages: u32,
) -> Result<ServingPlan, PlanError> {
    let (usable, rejected) = usable(costs);
    let counts = match stages {
        0 => 1..=usable.len().min(costs.layers as usize),
        fixed => fixed as usize..=fixed as usize,
    };
    let mut found = counts
        .map(|stages| search::pipelines(costs, &usable, stages, pipelines as usize, pages))
        .find(|cuts| !cuts.is_empty())
        .ok_or_else(|| remedy(costs, stages, pipelines))?;
    if pipelines == 0 {
        let fastest = costs.tokens_per_second_one(&found[0]);
        let is_fast =
            |cut: &StageCut| costs.tokens_per_second_one(cut) >= fastest * SLOWEST_PIPELINE;
        found.retain(is_fast);
    }
    Ok(planned(costs, &found, &usable, rejected, pages))
}

/// Bytes that `layers` of a model of `count` layers take, with `pages` pages and what a large pass
/// takes.
pub fn stage_bytes(profile: &ServingProfile, layers: Layers, count: u32, pages: u32) -> u64 {
    let grain = Grain::whole(count, &profile.cuts);
    Costs::new(&[], profile, grain).stage_bytes(layers, pages)
}

/// Bytes of that which a large pass takes, beside weights and pages.
pub fn workspace_bytes(profile: &ServingProfile) -> u64 {
    Costs::new(&[], profile, Grain::whole(1, &profile.cuts)).work_bytes()
}

fn check(
    devices: &[PlannerDevice],
    layers: u32,
    stages: u32,
    pipelines: u32,
) -> Result<(), PlanError> {
    if devices.is_empty() {
        return Err(PlanError::NoDevices);
    }
    if layers == 0 {
        let microbatches = 1;
        return Err(PlanError::EmptyJob {
            layers,
            microbatches,
        });
    }
    if stages > layers {
        return Err(PlanError::TooManyStages { stages, layers });
    }
    let (stages, replicas) = (stages.max(1), pipelines.max(1));
    if u64::from(stages) * u64::from(replicas) > devices.len() as u64 {
        let workers = devices.len() as u32;
        return Err(PlanError::TooFewWorkers {
            stages,
            replicas,
            workers,
        });
    }
    Ok(())
}

/// Devices with room for a layer somewhere, and why the others are none of them.
fn usable(costs: &Costs) -> (Vec<usize>, Vec<(usize, String)>) {
    let all = 0..costs.devices.len();
    let can = |device: &usize| costs.layers_in(*device, false, false, PAGES_MIN) > 0;
    let (usable, others): (Vec<usize>, Vec<usize>) = all.partition(can);
    let needed = costs.bytes(1, false, false, PAGES_MIN);
    let reason = |device: usize| {
        let memory = costs.devices[device].memory_bytes;
        format!("one layer and {PAGES_MIN} pages take {needed} bytes, and it has {memory}")
    };
    let rejected = others.into_iter().map(|device| (device, reason(device)));
    (usable, rejected.collect())
}

fn planned(
    costs: &Costs,
    cuts: &[StageCut],
    usable: &[usize],
    rejected: Vec<(usize, String)>,
    pages: u32,
) -> ServingPlan {
    let is_placed = |device: &usize| cuts.iter().any(|cut| cut.devices.contains(device));
    let mut spare = usable.to_vec();
    spare.retain(|device| !is_placed(device));
    let pipeline = |cut: &StageCut| ServingPipeline {
        stages: costs.stages(cut),
        devices: cut.devices.clone(),
        pages: costs.pages(cut, pages, spare.is_empty()),
        standby: Vec::new(),
    };
    let mut pipelines: Vec<ServingPipeline> = cuts.iter().map(pipeline).collect();
    standby::assign(costs, &mut pipelines, &spare);
    let many = cuts.iter().zip(&pipelines);
    let many = many.map(|(cut, pipeline)| costs.tokens_per_second_many(cut, pipeline.pages));
    ServingPlan {
        first_token_micros: (costs.first_token_seconds(&cuts[0]) * 1e6).ceil() as u64,
        tokens_per_second_one: costs.tokens_per_second_one(&cuts[0]),
        tokens_per_second_all: many.sum(),
        pipelines,
        spare,
        rejected,
    }
}

/// The error where nothing fits: how much more of what would do.
fn remedy(costs: &Costs, stages: u32, pipelines: u32) -> PlanError {
    let fits = |devices: &[PlannerDevice]| {
        let costs = costs.on(devices);
        search::fits(&costs, stages as usize, pipelines.max(1) as usize)
    };
    let with_bytes = |more: u64| {
        let mut larger = costs.devices.to_vec();
        for device in &mut larger {
            device.memory_bytes = device.memory_bytes.saturating_add(more);
        }
        fits(&larger)
    };
    let (mut too_few, mut enough) = (0, 1_u64);
    while !with_bytes(enough) && enough < 1 << 62 {
        (too_few, enough) = (enough, enough * 2);
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if with_bytes(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    let largest = costs
        .devices
        .iter()
        .max_by_key(|device| device.memory_bytes);
    let with_workers = |&more: &u32| {
        let mut larger = costs.devices.to_vec();
        for _ in 0..more {
            larger.extend(largest.cloned());
        }
        fits(&larger)
    };
    PlanError::Memory {
        workers: costs.devices.len() as u32,
        more_bytes: enough,
        more_workers: (1..=super::memory::MORE_WORKERS_MAX).find(with_workers),
    }
}
