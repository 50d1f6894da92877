//! A good plan for a pool of any size: seeds for every shape, then a local search from the best.

use super::cost::{Candidate, PlanShape, Problem};
use super::memory;

/// Seeds that are improved: enough for the shapes near the best, few enough for a large pool.
const FINALISTS: usize = 8;

/// Candidates that one improvement may look at, which bounds the time for a pool of any size.
const EVALUATIONS_MAX: u32 = 20_000;

/// A candidate, and the bytes by which it exceeds the memory of its devices.
struct Scored {
    overflow: u64,
    plan: Candidate,
}

impl Scored {
    fn new(problem: &Problem, lengths: Vec<u32>, slots: Vec<Vec<usize>>) -> Self {
        Self {
            overflow: problem.overflow(&lengths, &slots),
            plan: problem.candidate(lengths, slots),
        }
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let seconds = self.plan.seconds.total_cmp(&other.plan.seconds);
        self.overflow.cmp(&other.overflow).then(seconds)
    }

    fn beats(&self, other: &Self) -> bool {
        self.order(other).is_lt()
    }
}

/// A good plan, or nothing where none fits into memory.
pub(super) fn search(problem: &Problem) -> Option<Candidate> {
    let mut seeds: Vec<Scored> = problem
        .shapes()
        .into_iter()
        .flat_map(|shape| seeds(problem, shape))
        .collect();
    // The sort is stable: among equals the shape of fewer workers stays in front.
    seeds.sort_by(Scored::order);
    let mut best: Option<Scored> = None;
    for seed in seeds.into_iter().take(FINALISTS) {
        let improved = improve(problem, seed);
        if best.as_ref().is_none_or(|best| improved.beats(best)) {
            best = Some(improved);
        }
    }
    best.filter(|best| best.overflow == 0).map(|best| best.plan)
}

/// Three assignments of a shape: alike devices side by side in a stage, alike devices in a
/// pipeline, and one that fits into memory if any does.
fn seeds(problem: &Problem, shape: PlanShape) -> Vec<Scored> {
    let PlanShape { stages, replicas } = shape;
    let slots = |place: &dyn Fn(usize, usize) -> usize| -> Vec<Vec<usize>> {
        let pipeline = |replica| (0..stages).map(|stage| place(replica, stage)).collect();
        (0..replicas).map(pipeline).collect()
    };
    let by_stage = slots(&|replica, stage| stage * replicas + replica);
    let by_pipeline = slots(&|replica, stage| replica * stages + stage);
    let mut found = vec![cut(problem, by_stage)];
    if stages > 1 && replicas > 1 {
        found.push(cut(problem, by_pipeline));
    }
    if found.iter().all(|seed| seed.overflow > 0) {
        let fit = memory::fit(problem, shape);
        found.extend(fit.map(|fit| Scored::new(problem, fit.lengths, fit.slots)));
    }
    found
}

/// Cuts the layers for an assignment: each layer to the stage that then is the least slow, where
/// memory has room for it.
fn cut(problem: &Problem, slots: Vec<Vec<usize>>) -> Scored {
    let stages = slots[0].len();
    let mut lengths = vec![1; stages];
    let slowest = |stage: usize| {
        let speeds = slots.iter().map(|pipeline| problem.speeds[pipeline[stage]]);
        speeds.fold(f64::INFINITY, f64::min)
    };
    let speeds: Vec<f64> = (0..stages).map(slowest).collect();
    let room = |stage: usize| {
        let memories = slots
            .iter()
            .map(|pipeline| problem.devices[pipeline[stage]].memory_bytes);
        let least = memories.min().unwrap_or(0);
        problem.layers_in(least, stages, stage == 0, stage + 1 == stages)
    };
    let rooms: Vec<u32> = (0..stages).map(room).collect();
    for _ in stages as u32..problem.layers {
        let with_one_more = |stage: usize| {
            let head = if stage + 1 == stages {
                problem.head_work
            } else {
                0.0
            };
            (f64::from(lengths[stage] + 1) * problem.layer_work + head) / speeds[stage]
        };
        let rank = |stage: usize| (lengths[stage] >= rooms[stage], with_one_more(stage));
        let better = |a: &usize, b: &usize| {
            let (full_a, time_a) = rank(*a);
            let (full_b, time_b) = rank(*b);
            full_a.cmp(&full_b).then(time_a.total_cmp(&time_b))
        };
        let stage = (0..stages).min_by(better).unwrap_or(0);
        lengths[stage] += 1;
    }
    Scored::new(problem, lengths, slots)
}

/// Takes any move that helps, until none does or the budget is spent.
fn improve(problem: &Problem, seed: Scored) -> Scored {
    let mut best = seed;
    let mut budget = EVALUATIONS_MAX;
    loop {
        let moved = shift_layers(problem, &mut best, &mut budget);
        let swapped = swap_devices(problem, &mut best, &mut budget);
        if !(moved || swapped) || budget == 0 {
            return best;
        }
    }
}

fn accept(best: &mut Scored, next: Scored, budget: &mut u32) -> bool {
    *budget = budget.saturating_sub(1);
    let better = next.beats(best);
    if better {
        *best = next;
    }
    better
}

/// Moves layers from one stage to another.
fn shift_layers(problem: &Problem, best: &mut Scored, budget: &mut u32) -> bool {
    let stages = best.plan.lengths.len();
    let mut any = false;
    for from in 0..stages {
        for to in (0..stages).filter(|&to| to != from) {
            for count in [4, 1] {
                if *budget == 0 || best.plan.lengths[from] <= count {
                    continue;
                }
                let mut lengths = best.plan.lengths.clone();
                lengths[from] -= count;
                lengths[to] += count;
                let next = Scored::new(problem, lengths, best.plan.slots.clone());
                any |= accept(best, next, budget);
            }
        }
    }
    any
}

/// Swaps two devices of the plan, or one with an idle one.
fn swap_devices(problem: &Problem, best: &mut Scored, budget: &mut u32) -> bool {
    let count = problem.devices.len();
    let mut any = false;
    for a in 0..count {
        for b in a + 1..count {
            if *budget == 0 {
                return any;
            }
            let mut slots = best.plan.slots.clone();
            let mut is_placed = false;
            for slot in slots.iter_mut().flatten() {
                if *slot == a || *slot == b {
                    *slot = a + b - *slot;
                    is_placed = true;
                }
            }
            if is_placed {
                let cut_anew = cut(problem, slots.clone());
                let as_cut = Scored::new(problem, best.plan.lengths.clone(), slots);
                any |= accept(best, cut_anew, budget);
                any |= accept(best, as_cut, budget);
            }
        }
    }
    any
}
