//! A make-believe worker: it follows the protocol to the letter, unless it is told to lie.

mod leaves;
mod seen;

use std::collections::BTreeMap;

use concord_proto::AttemptId;
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::manifest::{DataManifest, StateManifest};
use concord_proto::session::{Assignment, Held, Scalars, ToCoordinator, ToWorker};
use concord_proto::tree::{self, Node};
use concord_proto::{
    BatchPlan, Digest, GradientPart, JobId, JobSpec, Keypair, LeafKey, LeafPhase, MicrobatchLoss,
    Origin, Port, PortKind, Signed, TensorState, WorkerId, first_half_digest, microbatch_digest,
};
use concord_verify::training::{StepValues, check_own_values, held_tensors, norms_digest, parts};

use super::arithmetic::{self as fake, Inputs, PerTensor};
use super::claims;
pub use super::frame::Frame;
use super::lies::{Kind, Lie};
use super::stage::{FirstReport, Openings, Stage, Work};
use leaves::{backward_one, forward_one, reduce, report};

/// What a worker does next.
#[derive(Debug)]
pub enum Act {
    Say(ToCoordinator),
    Push(Frame),
    /// Its blobs are in the store.
    Store(Vec<Digest>),
    Leave,
}

/// What all workers of a run can read in the store.
pub struct Library {
    pub specs: BTreeMap<Digest, JobSpec>,
    pub states: BTreeMap<Digest, StateManifest>,
    pub data: DataManifest,
}

pub struct Worker {
    pub key: Keypair,
    pub lie: Option<Lie>,
    pub stage: Option<Stage>,
    pub work: Option<Work>,
    /// Frames that came before their step.
    early: Vec<Frame>,
    pub openings: BTreeMap<(u32, u32), Openings>,
    /// Of the leaves of a final step, those that it still opens.
    audited: BTreeMap<(u32, u32), Vec<LeafKey>>,
    pub last_claim: Option<ToCoordinator>,
    pub steps_seen: u32,
    /// Whether what it says is altered on the way out.
    pub is_mutant: bool,
    last_attempt: Option<AttemptId>,
}

impl Worker {
    pub fn new(key: Keypair, lie: Option<Lie>) -> Self {
        Self {
            key,
            lie,
            stage: None,
            work: None,
            early: Vec::new(),
            openings: BTreeMap::new(),
            audited: BTreeMap::new(),
            last_claim: None,
            steps_seen: 0,
            is_mutant: false,
            last_attempt: None,
        }
    }

    pub fn id(&self) -> WorkerId {
        self.key.public()
    }

    /// The session broke: what is not committed is given up.
    pub fn disconnected(&mut self) {
        self.work = None;
        self.early.clear();
    }

    pub fn told(&mut self, library: &Library, message: ToWorker) -> Vec<Act> {
        match message {
            ToWorker::Assign(assignment) => self.load(library, *assignment),
            ToWorker::Step {
                epoch,
                step,
                started,
                ..
            } => self.start(library, (epoch, step), &started),
            ToWorker::Scalars { epoch, scalars, .. } => self.update(epoch, &scalars),
            ToWorker::Commit {
                epoch,
                step,
                release_below,
                ..
            } => {
                let stage = self.stage.as_mut().expect("a commit without a stage");
                assert_eq!(
                    stage.assignment.plan.epoch, epoch,
                    "a commit of another plan"
                );
                let work = self.work.take().expect("a commit without a step");
                assert_eq!(work.step, step);
                stage.states = work.after.expect("a commit before the update");
                stage.done = step + 1;
                self.openings.retain(|(s, _), _| *s >= release_below);
                self.audited.retain(|(s, _), _| *s >= release_below);
                Vec::new()
            }
            ToWorker::Audited(audited) => {
                let at = (audited.step, audited.epoch);
                self.audited.insert(at, audited.leaves);
                Vec::new()
            }
            ToWorker::Abort { epoch, .. } => {
                if self.epoch() == Some(epoch) {
                    self.work = None;
                    self.early.clear();
                }
                Vec::new()
            }
            ToWorker::Flush { job } => self.flush(job),
            ToWorker::Forget { .. } => {
                *self = Self::new(self.key.clone(), self.lie);
                Vec::new()
            }
            ToWorker::Leave => vec![Act::Leave],
            ToWorker::Challenge { .. }
            | ToWorker::Welcome { .. }
            | ToWorker::Refused { .. }
            | ToWorker::Unreached { .. }
            | ToWorker::Enrol(_)
            | ToWorker::Reveal { .. } => Vec::new(),
            ToWorker::Audit(_) => unreachable!("the world answers audits"),
            ToWorker::Serve(_) | ToWorker::Unserve { .. } | ToWorker::AuditAnswer(_) => {
                unreachable!("a job is trained")
            }
        }
    }

    pub fn epoch(&self) -> Option<u32> {
        self.stage.as_ref().map(|stage| stage.assignment.plan.epoch)
    }

    fn load(&mut self, library: &Library, assignment: Assignment) -> Vec<Act> {
        let spec = library.specs[&assignment.spec].clone();
        let state = &library.states[&assignment.state];
        let slot = assignment.plan.slot(&self.id()).expect("a slot");
        let layers = assignment.plan.stages[slot.stage];
        let held = held_tensors(&spec, layers);
        let states = held.into_iter().map(|i| (i, state.entries[i as usize]));
        let (job, epoch) = (assignment.plan.job, assignment.plan.epoch);
        self.early.retain(|frame| frame.epoch >= epoch);
        self.work = None;
        self.stage = Some(Stage {
            job,
            spec,
            slot,
            layers,
            states: states.collect(),
            done: state.step,
            assignment,
        });
        vec![Act::Say(ToCoordinator::Ready { job, epoch })]
    }

    fn start(
        &mut self,
        library: &Library,
        (epoch, step): (u32, u32),
        started: &Signed,
    ) -> Vec<Act> {
        let (attempt, previous) = self.attempt(started);
        let stage = self.stage.as_ref().expect("a step without a stage");
        assert_eq!(stage.assignment.plan.epoch, epoch, "a step of another plan");
        assert_eq!(stage.done, step, "a step out of turn");
        self.steps_seen += 1;
        let count = library.data.sequences.len() as u64;
        let mut batches = BatchPlan::new(&stage.spec, count);
        let mut tokens = BTreeMap::new();
        for m in stage.run(step) {
            let sequences = batches.sequences(step, m);
            tokens.insert(m, microbatch_digest(&library.data, &sequences));
        }
        self.work = Some(Work {
            attempt,
            previous,
            step,
            inbox: BTreeMap::new(),
            tokens,
            made: BTreeMap::new(),
            losses: Vec::new(),
            sums: BTreeMap::new(),
            totals: None,
            first_half: None,
            after: None,
        });
        let early = std::mem::take(&mut self.early);
        let mut acts: Vec<Act> = early.into_iter().flat_map(|f| self.received(f)).collect();
        acts.extend(self.go_on());
        acts
    }

    /// A frame of a neighbour.
    pub fn received(&mut self, frame: Frame) -> Vec<Act> {
        let step = self.work.as_ref().map(|work| work.step);
        let is_now = self.epoch() == Some(frame.epoch) && step == Some(frame.step);
        if !is_now {
            let epoch = self.epoch().unwrap_or(0);
            if frame.epoch > epoch || (frame.epoch == epoch && step.is_none_or(|s| frame.step > s))
            {
                self.early.push(frame);
            }
            return Vec::new();
        }
        let message = Origin::message(&frame.job, &frame.attempt, frame.microbatch, &frame.port);
        assert!(
            frame
                .origin
                .worker
                .verifies(&message, &frame.origin.signature)
        );
        let work = self.work.as_mut().expect("just looked");
        if let PortKind::Partial { node, part } = frame.port.kind {
            let sums = work.sums.entry(part).or_default();
            sums.insert(node, frame.sum.clone());
        }
        work.inbox
            .insert((frame.port.kind, frame.microbatch), frame);
        self.go_on()
    }

    /// Does all that can be done with what is here.
    fn go_on(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        let (Some(stage), Some(work)) = (&self.stage, &mut self.work) else {
            return acts;
        };
        let (run, evaluates) = (stage.run(work.step), stage.evaluates(work.step));
        let lie = self.lie.filter(|lie| lie.from_step <= work.step);
        if lie.is_some_and(|lie| lie.kind == Kind::SilentForward) {
            return acts;
        }
        for m in run.clone() {
            forward_one(stage, work, m, lie, &self.key, &mut acts);
            if !evaluates {
                backward_one(stage, work, m, lie, &self.key, &mut acts);
            }
        }
        let last = match evaluates {
            true => LeafPhase::Forward,
            false => LeafPhase::Backward,
        };
        let through = |work: &Work| run.clone().all(|m| work.made.contains_key(&(last, m)));
        if through(work)
            && !evaluates
            && !work
                .made
                .keys()
                .any(|(phase, _)| *phase == LeafPhase::Reduce)
        {
            reduce(stage, work, lie, &self.key, &mut acts);
        }
        if through(work) && work.first_half.is_none() && report(stage, work, lie, &self.key) {
            let (epoch, step) = (stage.assignment.plan.epoch, work.step);
            let openings = Openings {
                spec: stage.spec.clone(),
                layers: stage.layers,
                before: stage.states.clone(),
                tokens: work.tokens.clone(),
                sums: work.sums.clone(),
                numbers: Digest::default(),
            };
            self.openings.insert((step, epoch), openings);
            acts.extend(work.first_half.as_ref().map(|first| {
                Act::Say(ToCoordinator::Computed {
                    job: stage.job,
                    epoch,
                    step,
                    first_half: first.signed.clone(),
                    leaves: first.leaves.clone(),
                    losses: first.values.losses.clone(),
                    norms: first.values.norms.clone(),
                })
            }));
        }
        acts
    }

    fn update(&mut self, epoch: u32, scalars: &Scalars) -> Vec<Act> {
        let stage = self.stage.as_ref().expect("scalars without a stage");
        assert_eq!(
            stage.assignment.plan.epoch, epoch,
            "scalars of another plan"
        );
        let work = self.work.as_mut().expect("scalars without a step");
        assert_eq!(work.step, scalars.step);
        let totals = work
            .totals
            .as_ref()
            .expect("scalars before all is computed");
        let first = work.first_half.as_ref().expect("a first half");
        let own = (first_half_digest(&first.signed), &first.values);
        let (spec, plan) = (&stage.spec, &stage.assignment.plan);
        // What a liar has sent is not what it stands for.
        let checked = check_own_values(spec, plan, self.key.public(), scalars, own);
        assert!(
            checked.is_ok() || self.is_mutant,
            "altered scalars: {checked:?}"
        );
        let mut after = match stage.evaluates(work.step) {
            true => stage.states.clone(),
            false => fake::update(&stage.states, totals, fake::numbers(scalars)),
        };
        let lie = self.lie.filter(|lie| lie.from_step <= work.step);
        if lie.is_some_and(|lie| lie.kind == Kind::SilentUpdate) {
            return Vec::new();
        }
        if lie.is_some_and(|lie| lie.skips_update()) {
            after = stage.states.clone();
        }
        work.after = Some(after);
        if let Some(openings) = self.openings.get_mut(&(work.step, epoch)) {
            openings.numbers = fake::numbers(scalars);
        }
        let claim = claims::updated(&self.key, stage, work, scalars, lie);
        let said = match (&self.last_claim, lie) {
            (Some(before), Some(lie)) if lie.replays() => before.clone(),
            _ => claim.clone(),
        };
        self.last_claim = Some(claim);
        vec![Act::Say(said)]
    }
}
