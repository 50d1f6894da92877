//! The best plan of several replicas, exactly: cuts in the order of a lower bound, and for each a
//! search over the assignments of devices, which leaves a branch as soon as it cannot win.

use super::cost::{Candidate, PipelinePace, PlanShape, Problem};

/// A branch that could win by less than this share of the time is cut off: that spares the search
/// all plans that are equally good.
const GAIN_MIN: f64 = 1e-9;

/// A cut and what is known of all plans with it.
struct LayerCut {
    lengths: Vec<u32>,
    works: Vec<f64>,
    /// Sums of the largest works: of one stage, of two, and so on.
    heaviest: Vec<f64>,
    /// What a replica takes beyond `share * bottleneck`, at least.
    extra: f64,
    exchange: f64,
    /// Lower bound of the seconds of a step with this cut.
    bound: f64,
}

/// Replaces `best` where a plan of this shape is faster.
pub(super) fn search(problem: &Problem, shape: PlanShape, best: &mut Candidate) {
    let mut cuts = Vec::new();
    for lengths in compositions(problem.layers, shape.stages) {
        let cut = bounded(problem, shape, lengths);
        if cut.bound < best.seconds {
            cuts.push(cut);
        }
    }
    cuts.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    for cut in &cuts {
        if cut.bound >= best.seconds {
            return;
        }
        let rooms = |stage: usize| {
            let fits = |device: usize| {
                let memory = problem.devices[device].memory_bytes;
                let (first, last) = (stage == 0, stage + 1 == shape.stages);
                problem.layers_in(memory, shape.stages, first, last) >= cut.lengths[stage]
            };
            (0..problem.devices.len()).map(fits).collect()
        };
        SlotSearch {
            problem,
            cut,
            shape,
            fits: (0..shape.stages).map(rooms).collect(),
            slots: Vec::new(),
            paces: Vec::new(),
            used: vec![false; problem.devices.len()],
            best,
        }
        .fill_next();
    }
}

/// All cuts of `layers` into `stages`, with one order of the inner stages only: their order changes
/// nothing, since only the ends hold more than layers.
fn compositions(layers: u32, stages: usize) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    extend(layers, stages, &mut Vec::new(), &mut all);
    all
}

fn extend(left: u32, stages: usize, cut: &mut Vec<u32>, all: &mut Vec<Vec<u32>>) {
    let missing = stages - cut.len();
    if missing == 1 {
        all.push([&cut[..], &[left]].concat());
        return;
    }
    let inner_before = cut.len() >= 2;
    let largest = left - (missing as u32 - 1);
    let largest = match cut.last() {
        Some(&before) if inner_before => largest.min(before),
        _ => largest,
    };
    for length in 1..=largest {
        cut.push(length);
        extend(left - length, stages, cut, all);
        cut.pop();
    }
}

fn bounded(problem: &Problem, shape: PlanShape, lengths: Vec<u32>) -> LayerCut {
    let works = problem.works(&lengths);
    let mut heaviest = works.clone();
    heaviest.sort_by(|a, b| b.total_cmp(a));
    let lighter: f64 = heaviest[1..].iter().sum();
    for stage in 1..heaviest.len() {
        heaviest[stage] += heaviest[stage - 1];
    }
    let hops = problem.hops(shape.stages) - problem.link(shape.stages);
    let extra = lighter / problem.speeds[0] + hops;
    let exchange = problem.exchange(&lengths, shape.replicas);
    let everyone = vec![false; problem.devices.len()];
    let rate = rate_limit(problem, &heaviest, &everyone, shape.replicas);
    LayerCut {
        bound: f64::from(problem.microbatches) / rate + extra + exchange,
        lengths,
        works,
        heaviest,
        extra,
        exchange,
    }
}

/// Upper bound of the microbatches a second of `replicas` pipelines made of the devices that are
/// not `used`.
///
/// The k heaviest stages of each pipeline need k devices, at best the fastest that are free.
fn rate_limit(problem: &Problem, heaviest: &[f64], used: &[bool], replicas: usize) -> f64 {
    let free = (0..used.len()).filter(|&device| !used[device]);
    let mut speeds = free.map(|device| problem.speeds[device]);
    let mut sum = 0.0;
    let limit = |work: &f64| {
        sum += speeds.by_ref().take(replicas).sum::<f64>();
        sum / work
    };
    heaviest.iter().map(limit).fold(f64::INFINITY, f64::min)
}

/// The search over the assignments of devices, for one cut.
struct SlotSearch<'a> {
    problem: &'a Problem,
    cut: &'a LayerCut,
    shape: PlanShape,
    /// For each stage, which devices have the memory for it.
    fits: Vec<Vec<bool>>,
    /// The slots filled so far, replica by replica.
    slots: Vec<usize>,
    /// Of the replicas that are full.
    paces: Vec<PipelinePace>,
    used: Vec<bool>,
    best: &'a mut Candidate,
}

impl SlotSearch<'_> {
    fn fill_next(&mut self) {
        let stages = self.shape.stages;
        let stage = self.slots.len() % stages;
        if stage == 0 {
            if self.slots.len() == stages * self.shape.replicas {
                return self.keep();
            }
            if self.cannot_win() {
                return;
            }
        }
        let mut before: Option<usize> = None;
        for device in self.least_device(stage)..self.used.len() {
            if self.used[device] || !self.fits[stage][device] {
                continue;
            }
            if before.is_some_and(|before| self.alike(before, device)) {
                continue;
            }
            before = Some(device);
            self.sit(device);
        }
    }

    /// Replicas are interchangeable where their shares are free or equal: only assignments that
    /// name them in the order of their first devices are looked at.
    fn least_device(&self, stage: usize) -> usize {
        let replica = self.slots.len() / self.shape.stages;
        if stage > 0 || replica == 0 {
            return 0;
        }
        let alike = match &self.problem.shares {
            Some(shares) => shares[replica - 1] == shares[replica],
            None => true,
        };
        let first_before = self.slots[self.slots.len() - self.shape.stages];
        if alike { first_before + 1 } else { 0 }
    }

    fn alike(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.problem.devices[a], &self.problem.devices[b]);
        a.macs_per_second == b.macs_per_second && a.memory_bytes == b.memory_bytes
    }

    fn sit(&mut self, device: usize) {
        self.slots.push(device);
        self.used[device] = true;
        let full = self.slots.len().is_multiple_of(self.shape.stages);
        if full {
            let pipeline = &self.slots[self.slots.len() - self.shape.stages..];
            self.paces
                .push(self.problem.pace(&self.cut.works, pipeline));
        }
        self.fill_next();
        if full {
            self.paces.pop();
        }
        self.used[device] = false;
        self.slots.pop();
    }

    /// Whether the full replicas, with the fastest others that are still possible, cannot do all
    /// microbatches in less than the best time.
    fn cannot_win(&self) -> bool {
        let time = self.best.seconds - self.cut.exchange;
        if let Some(shares) = &self.problem.shares {
            let mut full = self.paces.iter().zip(shares);
            if full.any(|(pace, &share)| pace.finish(share) >= time) {
                return true;
            }
        }
        let done = |pace: &PipelinePace| (time - pace.fill) / pace.bottleneck + 1.0;
        let full: f64 = self.paces.iter().map(done).sum();
        let empty = self.shape.replicas - self.paces.len();
        let rate = rate_limit(self.problem, &self.cut.heaviest, &self.used, empty);
        let others = (time - self.cut.extra) * rate;
        full + others < f64::from(self.problem.microbatches) * (1.0 + GAIN_MIN)
    }

    fn keep(&mut self) {
        let slots = self.slots.chunks_exact(self.shape.stages);
        let slots = slots.map(<[usize]>::to_vec).collect();
        let candidate = self.problem.candidate(self.cut.lengths.clone(), slots);
        if candidate.seconds < self.best.seconds {
            *self.best = candidate;
        }
    }
}
