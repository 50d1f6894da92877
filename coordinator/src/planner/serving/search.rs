//! The search for pipelines.

use std::cmp::Reverse;

use super::cost::Costs;
use super::cut::StageCut;
use super::{PAGES_MIN, PAGES_WANTED};

/// If there are at most this many ways to choose the devices and the ends of a pipeline, all are
/// tried.
const EXACT_WAYS: u64 = 4_000;

/// The most rounds of improvement of a pipeline, where not all ways are tried.
const ROUNDS_MAX: usize = 32;

/// Pipelines of so many stages over distinct devices, the fastest first: `wanted` of them or none;
/// as many as fit where that is 0.
pub(super) fn pipelines(
    costs: &Costs,
    usable: &[usize],
    stages: usize,
    wanted: usize,
    pages: u32,
) -> Vec<StageCut> {
    let mut left = usable.to_vec();
    let mut found = Vec::new();
    while wanted == 0 || found.len() < wanted {
        let Some(cut) = best(costs, &left, stages, pages) else {
            break;
        };
        left.retain(|device| !cut.devices.contains(device));
        found.push(cut);
    }
    if found.len() >= wanted {
        return found;
    }
    // The first ones took the memory that the last ones need: deal it out evenly.
    let dealt = deal(costs, usable, stages, wanted);
    let cuts = dealt.iter().map(|group| best(costs, group, stages, pages));
    let mut cuts: Vec<StageCut> = cuts.collect::<Option<_>>().unwrap_or_default();
    cuts.sort_by(|a, b| a.pace.0.total_cmp(&b.pace.0));
    cuts
}

/// The best pipeline over some of these devices: with room for the pages asked for, or else the one
/// that gives the most tokens to many, who need pages as well as speed.
pub(super) fn best(costs: &Costs, pool: &[usize], stages: usize, pages: u32) -> Option<StageCut> {
    if stages == 0 || pool.len() < stages {
        return None;
    }
    if pages > PAGES_MIN
        && let Some(cut) = with_room(costs, pool, stages, pages)
    {
        return Some(cut);
    }
    let levels = PAGES_WANTED.into_iter();
    let cuts = levels.filter_map(|pages| with_room(costs, pool, stages, pages));
    let rated = cuts.map(|cut| {
        let room = costs.pages(&cut, pages, false);
        (costs.tokens_per_second_many(&cut, room), cut)
    });
    let better =
        |best: (f64, StageCut), next: (f64, StageCut)| if next.0 > best.0 { next } else { best };
    rated.reduce(better).map(|(_, cut)| cut)
}

/// The best pipeline of so many stages with room for so many pages.
pub(super) fn with_room(
    costs: &Costs,
    pool: &[usize],
    stages: usize,
    pages: u32,
) -> Option<StageCut> {
    let seed = largest(costs, pool, stages, pages)?;
    if ways(pool.len(), stages) <= EXACT_WAYS {
        let mut found = None;
        let mut chosen = Vec::new();
        choose(pool, stages, &mut chosen, &mut |devices| {
            found = best_ends(costs, devices, pages, found.take());
        });
        return found;
    }
    let mut fastest = pool.to_vec();
    fastest.sort_by_key(|&device| Reverse(costs.devices[device].macs_per_second));
    let start = best_ends(costs, &fastest[..stages], pages, Some(seed))?;
    Some(improve(costs, pool, pages, start))
}

/// Ways to choose the devices of a pipeline, and which of them take the ends.
fn ways(devices: usize, stages: usize) -> u64 {
    let (devices, stages) = (devices as u64, stages as u64);
    let sets = (0..stages).try_fold(1_u64, |sets, at| {
        Some(sets.checked_mul(devices - at)? / (at + 1))
    });
    sets.map_or(u64::MAX, |sets| sets.saturating_mul(stages * stages))
}

/// Calls `with` for each choice of `count` of the pool.
fn choose(pool: &[usize], count: usize, chosen: &mut Vec<usize>, with: &mut impl FnMut(&[usize])) {
    if count == 0 {
        return with(chosen);
    }
    for at in 0..=pool.len() - count {
        chosen.push(pool[at]);
        choose(&pool[at + 1..], count - 1, chosen, with);
        chosen.pop();
    }
}

/// The best of a cut and of those over these devices, whichever take the ends.
fn best_ends(
    costs: &Costs,
    devices: &[usize],
    pages: u32,
    mut best: Option<StageCut>,
) -> Option<StageCut> {
    let count = devices.len();
    for first in 0..count {
        for last in 0..count {
            if (first == last) != (count == 1) {
                continue;
            }
            let middle = (0..count).filter(|&at| at != first && at != last);
            let mut order: Vec<usize> = std::iter::once(first).chain(middle).collect();
            if last != first {
                order.push(last);
            }
            let order: Vec<usize> = order.into_iter().map(|at| devices[at]).collect();
            if let Some(cut) = cut(costs, order, pages)
                && cut.beats(&best)
            {
                best = Some(cut);
            }
        }
    }
    best
}

/// The cut over devices in this order whose slowest stage is fastest: each layer goes to the stage
/// that is fastest with one more. None if not all layers have room.
pub(super) fn cut(costs: &Costs, devices: Vec<usize>, pages: u32) -> Option<StageCut> {
    let count = devices.len();
    if count > costs.layers as usize {
        return None;
    }
    let is_last = |stage: usize| stage + 1 == count;
    let room = |(stage, &device): (usize, &usize)| {
        costs.layers_in(device, stage == 0, is_last(stage), pages)
    };
    let rooms: Vec<u32> = devices.iter().enumerate().map(room).collect();
    let sum: u64 = rooms.iter().copied().map(u64::from).sum();
    if rooms.contains(&0) || sum < costs.layers.into() {
        return None;
    }
    let mut lengths = vec![1; count];
    for _ in count as u32..costs.layers {
        let with_one_more = |&stage: &usize| {
            costs.typical_stage(devices[stage], lengths[stage] + 1, is_last(stage))
        };
        let open = (0..count).filter(|&stage| lengths[stage] < rooms[stage]);
        let next = open.min_by(|a, b| with_one_more(a).total_cmp(&with_one_more(b)))?;
        lengths[next] += 1;
    }
    let pace = costs.typical(&devices, &lengths);
    Some(StageCut {
        devices,
        lengths,
        pace,
    })
}

/// A cut over the devices with most memory. By an exchange argument, there is one if there is one
/// over any choice of devices.
fn largest(costs: &Costs, pool: &[usize], stages: usize, pages: u32) -> Option<StageCut> {
    let mut order = pool.to_vec();
    order.sort_by_key(|&device| Reverse(costs.devices[device].memory_bytes));
    best_ends(costs, order.get(..stages)?, pages, None)
}

/// Exchanges single devices while that helps.
fn improve(costs: &Costs, pool: &[usize], pages: u32, start: StageCut) -> StageCut {
    let mut best = start;
    for _ in 0..ROUNDS_MAX {
        let mut found = Some(best.clone());
        for at in 0..best.devices.len() {
            for &other in pool {
                let mut devices = best.devices.clone();
                match devices.iter().position(|&device| device == other) {
                    Some(place) => devices.swap(at, place),
                    None => devices[at] = other,
                }
                if let Some(cut) = cut(costs, devices, pages)
                    && cut.beats(&found)
                {
                    found = Some(cut);
                }
            }
        }
        match found {
            Some(cut) if cut != best => best = cut,
            _ => break,
        }
    }
    best
}

/// Groups of devices with about the same memory: dealt out in alternating directions, the largest
/// first.
fn deal(costs: &Costs, pool: &[usize], stages: usize, groups: usize) -> Vec<Vec<usize>> {
    let mut order = pool.to_vec();
    order.sort_by_key(|&device| Reverse(costs.devices[device].memory_bytes));
    let mut dealt = vec![Vec::new(); groups];
    for (round, row) in order.chunks(groups).take(stages).enumerate() {
        for (at, &device) in row.iter().enumerate() {
            let group = if round % 2 == 0 { at } else { groups - 1 - at };
            dealt[group].push(device);
        }
    }
    dealt
}

/// Whether any plan fits into memory; 0 `stages` leave their number open.
pub(super) fn fits(costs: &Costs, stages: usize, groups: usize) -> bool {
    let pool: Vec<usize> = (0..costs.devices.len()).collect();
    let counts = match stages {
        0 => 1..=(pool.len() / groups).min(costs.layers as usize),
        fixed => fixed..=fixed,
    };
    let each = |stages: usize| {
        let dealt = deal(costs, &pool, stages, groups);
        let fits = |group: &Vec<usize>| largest(costs, group, stages, PAGES_MIN).is_some();
        dealt.iter().all(fits)
    };
    counts.into_iter().any(each)
}
