//! All plans and their costs, by the formula of the cost model written a second time: what tests
//! compare the planner with.

use concord_proto::client::{ModelProfile, PlanChoice};

use super::PlannerDevice;
use super::tests::Case;

/// Bytes of a stage of (length, start, end) layers.
pub(super) fn stage_bytes(
    profile: &ModelProfile,
    run: (u32, u32, u32),
    layers: u32,
    (in_flight, microbatches): (u64, u32),
) -> u64 {
    let (length, start, end) = run;
    let in_flight = if end == layers { 1 } else { in_flight };
    let per_layer = profile.layer_bytes
        + profile.layer_state_bytes
        + in_flight * profile.layer_activation_bytes;
    let embed = if start == 0 { profile.embed_bytes } else { 0 };
    let head = if end == layers { profile.head_bytes } else { 0 };
    let shared = match (start, end == layers) {
        (0, true) => profile.shared_bytes,
        _ => 0,
    };
    let neighbours = u64::from(start > 0) + u64::from(end < layers);
    let openings = neighbours * 2 * u64::from(microbatches) * profile.boundary_bytes;
    u64::from(length) * per_layer + embed + head - shared + openings + profile.workspace_bytes
}

/// All ways to write `total` as `parts` positive numbers.
fn compositions(total: u32, parts: u32) -> Vec<Vec<u32>> {
    if parts == 1 {
        return vec![vec![total]];
    }
    let mut all = Vec::new();
    for first in 1..=total.saturating_sub(parts - 1) {
        for rest in compositions(total - first, parts - 1) {
            all.push([&[first], &rest[..]].concat());
        }
    }
    all
}

/// All ordered choices of `count` of `devices` indices.
fn arrangements(devices: usize, count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for before in arrangements(devices, count - 1) {
        for device in (0..devices).filter(|device| !before.contains(device)) {
            all.push([&before[..], &[device]].concat());
        }
    }
    all
}

/// The shortest time of a step over all plans, or nothing where none fits.
pub(super) fn brute_force(case: &Case, devices: &[PlannerDevice]) -> Option<f64> {
    let mut best: Option<f64> = None;
    for stages in 1..=(devices.len() as u32).min(case.layers) {
        for replicas in 1..=(devices.len() as u32 / stages).min(case.microbatches) {
            if let PlanChoice::Fixed {
                stages: s,
                replicas: r,
                ..
            } = case.choice
                && (s, r) != (stages, replicas)
            {
                continue;
            }
            for slots in arrangements(devices.len(), (stages * replicas) as usize) {
                let slots: Vec<&PlannerDevice> = slots.iter().map(|&slot| &devices[slot]).collect();
                for lengths in compositions(case.layers, stages) {
                    let time = step_time(case, &lengths, &slots);
                    best = match (best, time) {
                        (Some(best), Some(time)) => Some(best.min(time)),
                        (best, time) => best.or(time),
                    };
                }
            }
        }
    }
    best
}

fn step_time(case: &Case, lengths: &[u32], slots: &[&PlannerDevice]) -> Option<f64> {
    let (profile, stages) = (&case.profile, lengths.len());
    let in_flight = (stages as u64 + 1).min(u64::from(case.microbatches));
    let passes = profile.microbatch_tokens as f64 * (100 + profile.backward_percent) as f64 / 100.0;
    let transfer = profile.boundary_bytes as f64 / 1e9;
    let mut paces = Vec::new();
    for pipeline in slots.chunks(stages) {
        let mut start = 0;
        let mut bottleneck = if stages > 1 { transfer } else { 0.0 };
        let mut fill = (stages - 1) as f64 * (2.0 * 200e-6 + 2.0 * transfer);
        for (&length, device) in lengths.iter().zip(pipeline) {
            let end = start + length;
            let microbatches = (in_flight, case.microbatches);
            let need = stage_bytes(profile, (length, start, end), case.layers, microbatches);
            if need > device.memory_bytes {
                return None;
            }
            let head = if end == case.layers {
                profile.head_macs
            } else {
                0
            };
            let macs = (u64::from(length) * profile.layer_macs + head) as f64 * passes;
            let time = macs / device.macs_per_second as f64;
            bottleneck = time.max(bottleneck);
            fill += time;
            start = end;
        }
        paces.push((bottleneck, fill));
    }
    let dealings = match &case.choice {
        PlanChoice::Fixed { shares, .. } if !shares.is_empty() => vec![shares.clone()],
        _ => compositions(case.microbatches, paces.len() as u32),
    };
    let slowest = |shares: &Vec<u32>| {
        let times = paces.iter().zip(shares);
        times
            .map(|((bottleneck, fill), &m)| f64::from(m - 1) * bottleneck + fill)
            .fold(0.0, f64::max)
    };
    let exchange = if paces.len() > 1 {
        let longest = f64::from(*lengths.iter().max().unwrap());
        let bytes = longest * profile.layer_gradient_bytes as f64;
        2.0 * 200e-6 + (paces.len() - 1) as f64 * bytes / 1e9
    } else {
        0.0
    };
    dealings
        .iter()
        .map(slowest)
        .reduce(f64::min)
        .map(|time| time + exchange)
}
