//! Whether any plan fits into memory, and what would help where none does.
//!
//! A stage of n layers in a pipeline of s stages and m microbatches takes
//! `workspace_bytes + n * (layer_bytes + layer_state_bytes + f * layer_activation_bytes)`, and
//! `embed_bytes` and `head_bytes` where it has the ends, less `shared_bytes` where it has both; and
//! for each neighbour `2 * m * boundary_bytes`, which checkers may ask for until the audits of a
//! step and of the one before are over (of the neighbour before it, `m` of these are as many as an
//! evaluation has, where it has more). f, the microbatches in flight, is `min(s + 1, m)`, and 1 at
//! the last stage, where the way back of each starts at once. The client
//! that submits a job says what these are (`concord_models::memory`), and `concord plan` shows
//! them. Loading goes slice by slice and takes no more than that. Memory that is left over lets
//! audits fall behind by more than those two steps: by up to 8.

use super::PlanError;
use super::cost::{PlanShape, Problem};

/// How many more workers are considered as a remedy: more would be no useful advice.
pub(super) const MORE_WORKERS_MAX: u32 = 64;

/// A cut and an assignment that fit, for a given shape.
pub(super) struct MemoryFit {
    pub(super) lengths: Vec<u32>,
    pub(super) slots: Vec<Vec<usize>>,
}

/// Some plan of this shape that fits into memory, or nothing where there is none at all.
///
/// The devices with most memory go in groups of one per replica: by an exchange argument, no other
/// grouping holds more. Which groups take the ends is tried out.
pub(super) fn fit(problem: &Problem, shape: PlanShape) -> Option<MemoryFit> {
    let PlanShape { stages, replicas } = shape;
    let mut order: Vec<usize> = (0..problem.devices.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(problem.devices[i].memory_bytes));
    let groups: Vec<&[usize]> = order.chunks_exact(replicas).take(stages).collect();
    if groups.len() < stages {
        return None;
    }
    let memories: Vec<u64> = groups
        .iter()
        .map(|group| problem.devices[group[replicas - 1]].memory_bytes)
        .collect();
    let (first, last, caps) = best_ends(problem, &memories)?;
    let middle = (0..stages).filter(|&group| group != first && group != last);
    let mut groups_in_order: Vec<usize> = std::iter::once(first).chain(middle).collect();
    if last != first {
        groups_in_order.push(last);
    }
    let mut left = problem.layers - stages as u32;
    let mut lengths = Vec::new();
    for &group in &groups_in_order {
        let more = (caps[group] - 1).min(left);
        left -= more;
        lengths.push(1 + more);
    }
    let slot = |replica: usize| {
        groups_in_order
            .iter()
            .map(|&g| groups[g][replica])
            .collect()
    };
    Some(MemoryFit {
        lengths,
        slots: (0..replicas).map(slot).collect(),
    })
}

/// Which stages of these memories should take the ends so that all layers fit, and how many layers
/// each can hold then.
fn best_ends(problem: &Problem, memories: &[u64]) -> Option<(usize, usize, Vec<u32>)> {
    let stages = memories.len();
    let cap = |group: usize, first: bool, last: bool| {
        problem.layers_in(memories[group], stages, first, last)
    };
    let middle: Vec<u32> = (0..stages).map(|group| cap(group, false, false)).collect();
    let sum: u64 = middle.iter().copied().map(u64::from).sum();
    for first in 0..stages {
        for last in 0..stages {
            if (first == last) != (stages == 1) {
                continue;
            }
            let at_first = cap(first, true, first == last);
            let at_last = cap(last, first == last, true);
            let mut total = sum - u64::from(middle[first]) + u64::from(at_first);
            if first != last {
                total = total - u64::from(middle[last]) + u64::from(at_last);
            }
            let inner = (0..stages).filter(|&g| g != first && g != last);
            let none_empty = at_first > 0 && at_last > 0 && inner.clone().all(|g| middle[g] > 0);
            if none_empty && total >= u64::from(problem.layers) {
                let mut caps = middle;
                caps[first] = at_first;
                caps[last] = at_last;
                return Some((first, last, caps));
            }
        }
    }
    None
}

fn fits(problem: &Problem) -> bool {
    problem
        .shapes()
        .into_iter()
        .any(|shape| fit(problem, shape).is_some())
}

/// The error of a problem that no plan satisfies: how much more memory, or how many more workers,
/// would do.
pub(super) fn remedy(problem: &Problem) -> PlanError {
    let with_bytes = |more: u64| {
        let mut larger = problem.clone();
        for device in &mut larger.devices {
            device.memory_bytes = device.memory_bytes.saturating_add(more);
        }
        fits(&larger)
    };
    let (mut too_few, mut enough) = (0, 1_u64);
    while !with_bytes(enough) && enough < 1 << 62 {
        too_few = enough;
        enough *= 2;
    }
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        if with_bytes(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    let largest = problem.devices.iter().max_by_key(|d| d.memory_bytes);
    let with_workers = |&more: &u32| {
        let mut larger = problem.clone();
        for _ in 0..more {
            larger.devices.extend(largest.cloned());
        }
        fits(&larger)
    };
    PlanError::Memory {
        workers: problem.devices.len() as u32,
        more_bytes: enough,
        more_workers: (1..=MORE_WORKERS_MAX).find(with_workers),
    }
}
