//! Which devices load layers of others, too, in case that the holder is lost.

use concord_proto::Layers;

use super::ServingPipeline;
use super::cost::Costs;
use super::search;

/// Bytes of a stage of these layers.
fn stage_bytes(costs: &Costs, layers: &Layers, pages: u32) -> u64 {
    costs.stage_bytes(*layers, pages)
}

/// Fills in who stands by: spare devices for as many stages as fit; without spare devices, the
/// members for the layers that they would get if one of the others were lost.
pub(super) fn assign(costs: &Costs, pipelines: &mut [ServingPipeline], spare: &[usize]) {
    if spare.is_empty() {
        for pipeline in pipelines {
            pipeline.standby = members(costs, pipeline);
        }
        return;
    }
    // How many stand by for each stage of each pipeline.
    let stages = |pipeline: &ServingPipeline| vec![0; pipeline.stages.len()];
    let mut cover: Vec<Vec<u32>> = pipelines.iter().map(stages).collect();
    for &device in spare {
        stand_by(costs, pipelines, &mut cover, device);
    }
}

/// Gives a spare device stages to stand by for, those first that fewest others stand by for.
fn stand_by(
    costs: &Costs,
    pipelines: &mut [ServingPipeline],
    cover: &mut [Vec<u32>],
    device: usize,
) {
    let places = cover.iter().enumerate();
    let places = places.flat_map(|(p, row)| row.iter().enumerate().map(move |(s, n)| (*n, p, s)));
    let mut places: Vec<(u32, usize, usize)> = places.collect();
    places.sort_unstable();
    let memory = costs.devices[device].memory_bytes;
    // It takes one slot at most: weights of all, and the pages of the one that takes most.
    let mut loaded: Vec<Layers> = Vec::new();
    let (mut weights, mut pages) = (0_u64, 0_u64);
    for (_, p, s) in places {
        let layers = pipelines[p].stages[s];
        let alone = stage_bytes(costs, &layers, 0);
        let of_pages = stage_bytes(costs, &layers, pipelines[p].pages).saturating_sub(alone);
        let is_new = !loaded.contains(&layers);
        let more = if is_new { alone } else { 0 };
        let most = pages.max(of_pages);
        if weights.saturating_add(more).saturating_add(most) > memory {
            continue;
        }
        (weights, pages) = (weights + more, most);
        if is_new {
            loaded.push(layers);
        }
        cover[p][s] += 1;
        let standby = &mut pipelines[p].standby;
        match standby.iter_mut().find(|(other, _)| *other == device) {
            Some((_, list)) => list.push(layers),
            None => standby.push((device, vec![layers])),
        }
    }
}

/// For each member that may be lost, the others get the layers that the plan without it gives them,
/// where they have room beside their own.
fn members(costs: &Costs, pipeline: &ServingPipeline) -> Vec<(usize, Vec<Layers>)> {
    let slots = || pipeline.devices.iter().copied().zip(&pipeline.stages);
    let own = |layers: &Layers| stage_bytes(costs, layers, pipeline.pages);
    let mut used: Vec<u64> = pipeline.stages.iter().map(own).collect();
    let mut standby: Vec<Vec<Layers>> = vec![Vec::new(); used.len()];
    for lost in &pipeline.devices {
        let mut rest = pipeline.devices.clone();
        rest.retain(|device| device != lost);
        let counts = 1..=rest.len().min(costs.layers as usize);
        let mut cuts = counts.map(|stages| search::best(costs, &rest, stages, 0));
        let Some(cut) = cuts.find_map(|cut| cut) else {
            continue;
        };
        for (device, layers) in cut.devices.iter().zip(costs.stages(&cut)) {
            let Some(at) = slots().position(|(member, _)| member == *device) else {
                continue;
            };
            let more = stage_bytes(costs, &layers, 0);
            let has_room = used[at].saturating_add(more) <= costs.devices[*device].memory_bytes;
            let is_known = pipeline.stages[at] == layers || standby[at].contains(&layers);
            if has_room && !is_known {
                used[at] += more;
                standby[at].push(layers);
            }
        }
    }
    let all = pipeline.devices.iter().copied().zip(standby);
    all.filter(|(_, list)| !list.is_empty()).collect()
}
