//! The best single pipeline, exactly.
//!
//! All layers cost the same. So a bound T on the time of the slowest stage limits the layers of
//! each device, and a microbatch gets through fastest when the fastest devices are filled first.
//! What remains to be tried is the choice of devices, which of them take the ends, and T.

use super::cost::{Candidate, Problem};

/// Keeps a count of layers from falling below a whole number that rounding missed by a hair.
const ROUNDING: f64 = 1e-9;

/// The devices of one pipeline, fastest first, and which of them take the ends.
struct Choice<'a> {
    devices: &'a [usize],
    first: usize,
    last: usize,
}

/// Replaces `best` where a pipeline of `stages` is faster.
pub(super) fn search(problem: &Problem, stages: usize, best: &mut Candidate) {
    for subset in 0_u32..1 << problem.devices.len() {
        if subset.count_ones() as usize != stages {
            continue;
        }
        let chosen = (0..problem.devices.len()).filter(|device| subset >> device & 1 == 1);
        let devices: Vec<usize> = chosen.collect();
        for &first in &devices {
            for &last in &devices {
                if (first == last) == (stages == 1) {
                    let choice = Choice {
                        devices: &devices,
                        first,
                        last,
                    };
                    try_choice(problem, &choice, best);
                }
            }
        }
    }
}

fn try_choice(problem: &Problem, choice: &Choice, best: &mut Candidate) {
    let stages = choice.devices.len();
    let rooms: Vec<u32> = choice
        .devices
        .iter()
        .map(|&device| {
            let memory = problem.devices[device].memory_bytes;
            let (first, last) = (device == choice.first, device == choice.last);
            problem.layers_in(memory, stages, first, last)
        })
        .collect();
    let held: u64 = rooms.iter().copied().map(u64::from).sum();
    if rooms.contains(&0) || held < u64::from(problem.layers) {
        return;
    }
    let layer_time = |device: usize| problem.layer_work / problem.speeds[device];
    let head_time = problem.head_work / problem.speeds[choice.last];
    let head_of = |device: usize| {
        if device == choice.last {
            head_time
        } else {
            0.0
        }
    };
    let fastest = layer_time(choice.devices[0]);
    let least_fill = f64::from(problem.layers) * fastest + head_time + problem.hops(stages);
    let waits = f64::from(problem.microbatches - 1);
    let too_slow = |bottleneck: f64, best: &Candidate| {
        let least = waits * bottleneck.max(problem.link(stages)) + least_fill;
        least >= best.seconds
    };
    let speed: f64 = choice.devices.iter().map(|&d| problem.speeds[d]).sum();
    let work = f64::from(problem.layers) * problem.layer_work + problem.head_work;
    let bound = work / speed * (1.0 - ROUNDING);
    if too_slow(bound, best) {
        return;
    }
    let mut bottlenecks: Vec<f64> = choice
        .devices
        .iter()
        .zip(&rooms)
        .flat_map(|(&device, &room)| {
            (1..=room).map(move |count| f64::from(count) * layer_time(device) + head_of(device))
        })
        .filter(|&bottleneck| bottleneck >= bound)
        .collect();
    bottlenecks.sort_by(f64::total_cmp);
    bottlenecks.dedup();
    for bottleneck in bottlenecks {
        if too_slow(bottleneck, best) {
            return;
        }
        let limit = |(&device, &room): (&usize, &u32)| {
            let count = (bottleneck - head_of(device)) / layer_time(device) + ROUNDING;
            (count.max(0.0) as u32).min(room)
        };
        let limits: Vec<u32> = choice.devices.iter().zip(&rooms).map(limit).collect();
        if let Some(lengths) = fill(problem.layers, &limits) {
            let candidate = arranged(problem, choice, &lengths);
            if candidate.seconds < best.seconds {
                *best = candidate;
            }
        }
    }
}

/// One layer to each device, the others to the first that have room.
fn fill(layers: u32, limits: &[u32]) -> Option<Vec<u32>> {
    if limits.contains(&0) {
        return None;
    }
    let mut left = layers - limits.len() as u32;
    let mut lengths = Vec::with_capacity(limits.len());
    for limit in limits {
        let more = left.min(limit - 1);
        left -= more;
        lengths.push(1 + more);
    }
    (left == 0).then_some(lengths)
}

/// The chosen devices in the order of the pipeline.
fn arranged(problem: &Problem, choice: &Choice, lengths: &[u32]) -> Candidate {
    let place = |device: usize| match device {
        device if device == choice.first => 0,
        device if device == choice.last => 2,
        _ => 1,
    };
    let mut stages: Vec<(usize, u32)> = choice
        .devices
        .iter()
        .copied()
        .zip(lengths.iter().copied())
        .collect();
    stages.sort_by_key(|&(device, _)| place(device));
    let (slots, lengths) = stages.into_iter().unzip();
    problem.candidate(lengths, vec![slots])
}
