//! The cost model: what a plan takes in time and memory.
//!
//! A pipeline with bottleneck `T` (its slowest stage or link) does m microbatches in `(m - 1) * T +
//! fill`, where fill is the time of one microbatch through all stages and links and back. A step
//! takes as long as its slowest replica, and the exchange of gradients after it.

use concord_proto::client::PlanChoice;

use super::{PlanError, PlanRequest, PlannerDevice};

/// Latency from one worker to the next. Links are not measured yet: this is a local network with
/// gRPC on top, so that a cut of a tiny model is not taken for free.
const LINK_SECONDS: f64 = 200e-6;

/// Bytes a second between two workers: 10 Gbit/s, which loopback and a wired network reach.
const LINK_BYTES_PER_SECOND: f64 = 1e9;

/// Steps whose inputs checkers may ask for, at the same time: every plan has room for so many.
/// `concord_models::memory` counts as many.
const OPEN_STEPS: u64 = 2;

/// Most of them, where memory has room: more would hide no delay of a checker.
const OPEN_STEPS_MAX: u64 = 8;

/// Stages x replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlanShape {
    pub(super) stages: usize,
    pub(super) replicas: usize,
}

/// A plan as the search has it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Layers of each stage.
    pub(super) lengths: Vec<u32>,
    /// For each replica, the device of each stage, as an index into [`Problem::devices`].
    pub(super) slots: Vec<Vec<usize>>,
    /// Microbatches of each replica.
    pub(super) shares: Vec<u32>,
    /// Predicted time of a step.
    pub(super) seconds: f64,
}

/// How fast a pipeline is, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct PipelinePace {
    /// Of its slowest stage or link, for one microbatch.
    pub(super) bottleneck: f64,
    /// Of one microbatch through all of it and back.
    pub(super) fill: f64,
}

impl PipelinePace {
    /// When the last of `count` microbatches is through.
    pub(super) fn finish(&self, count: u32) -> f64 {
        f64::from(count.saturating_sub(1)) * self.bottleneck + self.fill
    }
}

/// A request, checked, as the search has it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The devices, fastest first. Equal devices stand side by side.
    pub(super) devices: Vec<PlannerDevice>,
    /// Their speeds in multiply-adds a second.
    pub(super) speeds: Vec<f64>,
    pub(super) layers: u32,
    pub(super) microbatches: u32,
    /// The shape that the user fixed.
    fixed: Option<PlanShape>,
    /// The shares that the user fixed.
    pub(super) shares: Option<Vec<u32>>,
    /// Multiply-adds of one layer for one microbatch, forward and backward.
    pub(super) layer_work: f64,
    /// The same for the head.
    pub(super) head_work: f64,
    /// Time of hidden states or their gradient between two stages, without the latency.
    pub(super) transfer: f64,
    layer_state_bytes: u64,
    layer_gradient_bytes: u64,
    layer_bytes: u64,
    activation_bytes: u64,
    embed_bytes: u64,
    head_bytes: u64,
    shared_bytes: u64,
    workspace_bytes: u64,
    /// What comes in over an end of a stage that is none of the model, in one step.
    step_bytes: u64,
    /// The same of an evaluation.
    evaluation_bytes: u64,
}

impl Problem {
    pub(super) fn new(request: &PlanRequest) -> Result<Self, PlanError> {
        let profile = request.profile;
        if request.layers == 0 || request.microbatches == 0 {
            return Err(PlanError::EmptyJob {
                layers: request.layers,
                microbatches: request.microbatches,
            });
        }
        if request.devices.is_empty() {
            return Err(PlanError::NoDevices);
        }
        let (fixed, shares) = check_choice(request)?;
        let mut devices = request.devices.to_vec();
        let rank = |d: &PlannerDevice| (d.macs_per_second, d.memory_bytes);
        devices.sort_by(|a, b| rank(b).cmp(&rank(a)).then(a.id.cmp(&b.id)));
        let speed = |d: &PlannerDevice| d.macs_per_second.max(1) as f64;
        let passes =
            profile.microbatch_tokens as f64 * (1.0 + f64::from(profile.backward_percent) / 100.0);
        Ok(Self {
            speeds: devices.iter().map(speed).collect(),
            devices,
            layers: request.layers,
            microbatches: request.microbatches,
            fixed,
            shares,
            layer_work: (profile.layer_macs as f64 * passes).max(1.0),
            head_work: profile.head_macs as f64 * passes,
            transfer: profile.boundary_bytes as f64 / LINK_BYTES_PER_SECOND,
            layer_state_bytes: profile.layer_state_bytes,
            layer_gradient_bytes: profile.layer_gradient_bytes,
            layer_bytes: profile.layer_bytes,
            activation_bytes: profile.layer_activation_bytes,
            embed_bytes: profile.embed_bytes,
            head_bytes: profile.head_bytes,
            shared_bytes: profile.shared_bytes,
            workspace_bytes: profile.workspace_bytes,
            step_bytes: profile
                .boundary_bytes
                .saturating_mul(request.microbatches.into()),
            evaluation_bytes: profile
                .boundary_bytes
                .saturating_mul(request.evaluation_microbatches.into()),
        })
    }

    /// The shapes to search, those of few workers first: at equal times the smaller wins.
    pub(super) fn shapes(&self) -> Vec<PlanShape> {
        if let Some(shape) = self.fixed {
            return vec![shape];
        }
        let (layers, microbatches) = (self.layers as usize, self.microbatches as usize);
        let count = self.devices.len();
        let mut shapes: Vec<PlanShape> = (1..=count.min(layers))
            .flat_map(|stages| {
                (1..=(count / stages).min(microbatches))
                    .map(move |replicas| PlanShape { stages, replicas })
            })
            .collect();
        shapes.sort_by_key(|shape| (shape.stages * shape.replicas, shape.stages));
        shapes
    }

    /// Multiply-adds of each stage for one microbatch.
    pub(super) fn works(&self, lengths: &[u32]) -> Vec<f64> {
        let layers = |&length: &u32| f64::from(length) * self.layer_work;
        let mut works: Vec<f64> = lengths.iter().map(layers).collect();
        if let Some(last) = works.last_mut() {
            *last += self.head_work;
        }
        works
    }

    /// Microbatches that every plan of so many stages must have room for.
    fn least_depth(stages: usize) -> u64 {
        stages as u64 + 1
    }

    /// Bytes that one layer takes, with so many microbatches in flight in its pipeline.
    fn bytes_per_layer(&self, depth: u64, last: bool) -> u64 {
        // At the last stage, the backward pass of a microbatch starts before the next one comes.
        let depth = if last { 1 } else { depth };
        let in_flight = depth.min(u64::from(self.microbatches));
        let activations = self.activation_bytes.saturating_mul(in_flight);
        let fixed = self.layer_bytes.saturating_add(self.layer_state_bytes);
        fixed.saturating_add(activations).max(1)
    }

    /// Bytes of a stage beside its layers: of embedding and head where it holds them, and of what
    /// checkers may ask for, where it has neighbours. Of an evaluation nothing comes back; before
    /// and after one, there is an update.
    fn fixed_bytes(&self, first: bool, last: bool) -> u64 {
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        part(first, self.embed_bytes)
            .saturating_add(part(last, self.head_bytes))
            .saturating_sub(part(first && last, self.shared_bytes))
            .saturating_add(part(!first, self.step_bytes.saturating_mul(OPEN_STEPS - 1)))
            .saturating_add(part(!first, self.step_bytes.max(self.evaluation_bytes)))
            .saturating_add(part(!last, self.step_bytes.saturating_mul(OPEN_STEPS)))
            .saturating_add(self.workspace_bytes)
    }

    /// Bytes that a stage of so many layers holds for each further step that checkers may ask
    /// about: what came in, and at most its share of what is counted of trained tensors and their
    /// gradients.
    fn open_step_bytes(&self, layers: u32, first: bool, last: bool) -> u64 {
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        let layers = self.layer_state_bytes.saturating_mul(layers.into());
        let trained = layers
            .saturating_add(part(first, self.embed_bytes))
            .saturating_add(part(last, self.head_bytes));
        (trained / OPEN_STEPS)
            .saturating_add(part(!first, self.step_bytes.max(self.evaluation_bytes)))
            .saturating_add(part(!last, self.step_bytes))
    }

    /// Steps whose inputs checkers may ask for at the same time, with `depth` microbatches in
    /// flight: as many as every stage of a plan has memory for.
    pub(super) fn open_steps(&self, plan: &Candidate, depth: u32) -> u32 {
        let last = plan.lengths.len() - 1;
        let mut steps = OPEN_STEPS_MAX;
        for pipeline in &plan.slots {
            for (stage, (&length, &slot)) in plan.lengths.iter().zip(pipeline).enumerate() {
                let (is_first, is_last) = (stage == 0, stage == last);
                let taken = self.bytes(length, depth.into(), is_first, is_last);
                let room = self.devices[slot].memory_bytes.saturating_sub(taken);
                let each = self.open_step_bytes(length, is_first, is_last).max(1);
                steps = steps.min(OPEN_STEPS.saturating_add(room / each));
            }
        }
        steps as u32
    }

    /// Bytes of a stage of so many layers.
    fn bytes(&self, layers: u32, depth: u64, first: bool, last: bool) -> u64 {
        let each = self.bytes_per_layer(depth, last);
        let layers = each.saturating_mul(u64::from(layers));
        layers.saturating_add(self.fixed_bytes(first, last))
    }

    /// Layers that fit into `memory` at one stage of a pipeline of `stages`.
    pub(super) fn layers_in(&self, memory: u64, stages: usize, first: bool, last: bool) -> u32 {
        let Some(room) = memory.checked_sub(self.fixed_bytes(first, last)) else {
            return 0;
        };
        let fitting = room / self.bytes_per_layer(Self::least_depth(stages), last);
        fitting.min(u64::from(self.layers)) as u32
    }

    /// Bytes by which the stages exceed the memory of their devices, in all.
    pub(super) fn overflow(&self, lengths: &[u32], slots: &[Vec<usize>]) -> u64 {
        let depth = Self::least_depth(lengths.len());
        let last = lengths.len() - 1;
        let mut total = 0_u64;
        for pipeline in slots {
            for (stage, (&length, &slot)) in lengths.iter().zip(pipeline).enumerate() {
                let need = self.bytes(length, depth, stage == 0, stage == last);
                let excess = need.saturating_sub(self.devices[slot].memory_bytes);
                total = total.saturating_add(excess);
            }
        }
        total
    }

    /// Bytes that each stage takes with `depth` microbatches in flight in its pipeline.
    pub(super) fn stage_bytes(&self, lengths: &[u32], depth: u32) -> Vec<u64> {
        let last = lengths.len() - 1;
        let stage = |(stage, &length): (usize, &u32)| {
            self.bytes(length, depth.into(), stage == 0, stage == last)
        };
        lengths.iter().enumerate().map(stage).collect()
    }

    /// Time on the links of a pipeline, of one microbatch and its gradients.
    pub(super) fn hops(&self, stages: usize) -> f64 {
        (stages - 1) as f64 * 2.0 * (LINK_SECONDS + self.transfer)
    }

    /// The slowest link: none in a pipeline of one stage.
    pub(super) fn link(&self, stages: usize) -> f64 {
        if stages > 1 { self.transfer } else { 0.0 }
    }

    /// Time of the exchange of gradients between `replicas`, of which each sends its sums to each
    /// of the others; the longest stage has most.
    pub(super) fn exchange(&self, lengths: &[u32], replicas: usize) -> f64 {
        if replicas == 1 {
            return 0.0;
        }
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let bytes = f64::from(longest) * self.layer_gradient_bytes as f64;
        2.0 * LINK_SECONDS + (replicas - 1) as f64 * bytes / LINK_BYTES_PER_SECOND
    }

    /// How fast the devices `slots` are at stages of these `works`.
    pub(super) fn pace(&self, works: &[f64], slots: &[usize]) -> PipelinePace {
        let times = works
            .iter()
            .zip(slots)
            .map(|(work, &slot)| work / self.speeds[slot]);
        let (slowest, sum) = times.fold((0.0_f64, 0.0), |(slowest, sum), time| {
            (slowest.max(time), sum + time)
        });
        PipelinePace {
            bottleneck: slowest.max(self.link(works.len())),
            fill: sum + self.hops(works.len()),
        }
    }

    /// The candidate of a cut and an assignment, with the best shares.
    pub(super) fn candidate(&self, lengths: Vec<u32>, slots: Vec<Vec<usize>>) -> Candidate {
        let works = self.works(&lengths);
        let paces: Vec<PipelinePace> = slots.iter().map(|slots| self.pace(&works, slots)).collect();
        let shares = match &self.shares {
            Some(shares) => shares.clone(),
            None => share(&paces, self.microbatches),
        };
        let slowest = paces
            .iter()
            .zip(&shares)
            .map(|(pace, &count)| pace.finish(count))
            .fold(0.0, f64::max);
        Candidate {
            seconds: slowest + self.exchange(&lengths, slots.len()),
            lengths,
            slots,
            shares,
        }
    }

    /// How many microbatches may be in flight: one more than stages, and as many more as hide the
    /// latency of the links, where memory has room for them.
    pub(super) fn depth(&self, plan: &Candidate) -> u32 {
        let stages = plan.lengths.len();
        let floor = stages as u32 + 1;
        let works = self.works(&plan.lengths);
        let paces = plan.slots.iter().map(|slots| self.pace(&works, slots));
        let hiding = |pace: PipelinePace| (self.hops(stages) / pace.bottleneck).ceil() as u32;
        let wanted = floor.saturating_add(paces.map(hiding).max().unwrap_or(0));
        let wanted = wanted.min(self.microbatches.max(floor));
        let fixed = self.layer_bytes.saturating_add(self.layer_state_bytes);
        let mut depth = u64::from(wanted);
        for pipeline in &plan.slots {
            // The last stage has one in flight at any depth.
            let stages = plan.lengths.iter().zip(pipeline).take(stages - 1);
            for (stage, (&length, &slot)) in stages.enumerate() {
                let length = u64::from(length);
                let ends = self.fixed_bytes(stage == 0, false);
                let taken = fixed.saturating_mul(length).saturating_add(ends);
                let room = self.devices[slot].memory_bytes.saturating_sub(taken);
                let each = self.activation_bytes.saturating_mul(length).max(1);
                depth = depth.min(room / each);
            }
        }
        (depth as u32).max(floor)
    }
}

/// Deals `microbatches` to pipelines so that the last finishes as early as can be: one to each,
/// then each to the replica that would finish it first.
pub(super) fn share(paces: &[PipelinePace], microbatches: u32) -> Vec<u32> {
    let start = even_finish(paces, microbatches);
    // One less than are done by the even finish: never more than the loop below would deal.
    let below = |pace: &PipelinePace| ((start - pace.fill) / pace.bottleneck).floor() as u32;
    let mut shares: Vec<u32> = paces.iter().map(|pace| below(pace).max(1)).collect();
    let mut dealt: u32 = shares.iter().sum();
    while dealt < microbatches {
        let finish = |&i: &usize| paces[i].finish(shares[i] + 1);
        let soonest = (0..paces.len()).min_by(|a, b| finish(a).total_cmp(&finish(b)));
        shares[soonest.unwrap_or(0)] += 1;
        dealt += 1;
    }
    shares
}

/// The time at which all would finish together if microbatches could be split. Pipelines that take
/// longer for a single microbatch get just that one, and do not count.
fn even_finish(paces: &[PipelinePace], microbatches: u32) -> f64 {
    let mut active: Vec<&PipelinePace> = paces.iter().collect();
    loop {
        let aside = (paces.len() - active.len()) as f64;
        let load: f64 = active.iter().map(|p| p.fill / p.bottleneck - 1.0).sum();
        let rate: f64 = active.iter().map(|p| 1.0 / p.bottleneck).sum();
        let finish = (f64::from(microbatches) - aside + load) / rate;
        let before = active.len();
        active.retain(|pace| pace.fill <= finish);
        if active.len() == before || active.is_empty() {
            return finish;
        }
    }
}

fn check_choice(request: &PlanRequest) -> Result<(Option<PlanShape>, Option<Vec<u32>>), PlanError> {
    let PlanChoice::Fixed {
        stages,
        replicas,
        shares,
    } = request.choice
    else {
        return Ok((None, None));
    };
    super::choice::check(request.choice, request.layers, request.microbatches)?;
    let (stages, replicas) = (*stages, *replicas);
    if u64::from(stages) * u64::from(replicas) > request.devices.len() as u64 {
        return Err(PlanError::TooFewWorkers {
            stages,
            replicas,
            workers: request.devices.len() as u32,
        });
    }
    let shape = PlanShape {
        stages: stages as usize,
        replicas: replicas as usize,
    };
    let shares = (!shares.is_empty()).then(|| shares.clone());
    Ok((Some(shape), shares))
}
