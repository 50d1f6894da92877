//! Workers that do what they are told: one step from any state, for any attempt, with a false leaf
//! or without. Nothing of it is remembered, so that a step can be done again in any other way.

use std::collections::BTreeMap;

use concord_coordinator::core::NewJob;
use concord_proto::manifest::{StateEntry, StateManifest};
use concord_proto::session::{Assignment, Scalars, ToCoordinator, ToWorker};
use concord_proto::{
    AttemptId, BatchPlan, ClaimedLeaf, Conviction, Digest, Domain, JobSpec, Layers, Leaf,
    MicrobatchLoss, Plan, Replica, Signed, SignedHalf, Slot, StepRecord, TensorNorm, WorkerId,
    first_half_digest, microbatch_digest,
};
use concord_verify::training::bundle::StepClaims;
use concord_verify::training::{StepRules, WorkerClaim, merged_state, step_record};

use super::super::claims::{inputs, rerun};
use super::super::job::LAYERS;
use super::super::lies::{Kind, Lie};
use super::super::stage::Openings;
use super::super::watch::SeenClaim;
use super::super::worker::{Act, Library, Worker};
use super::super::world::key;

/// The workers that a pipeline begins with: one for each stage, in order.
const WORKERS: [u8; 2] = [1, 2];

/// The bench, for one job.
pub(super) struct Bench {
    pub(super) new: NewJob,
    pub(super) plan: Plan,
    /// The numbers of its workers' keys.
    workers: Vec<u8>,
    library: Library,
}

/// A step that was done.
#[derive(Clone)]
pub(super) struct DoneStep {
    pub(super) claims: StepClaims,
    pub(super) record: StepRecord,
    /// What its workers can open of it.
    pub(super) openings: BTreeMap<WorkerId, Openings>,
    pub(super) after: Vec<StateEntry>,
}

/// What the first half of a step says.
struct FirstHalfSaid {
    first_half: Signed,
    leaves: Vec<Leaf>,
    losses: Vec<MicrobatchLoss>,
    norms: Vec<TensorNorm>,
}

impl Bench {
    /// A pipeline of one stage or two.
    pub(super) fn new(new: NewJob, stages: u32) -> Self {
        let spec = &new.submission.spec;
        let edge = |stage: u32| stage * LAYERS / stages;
        let workers = &WORKERS[..stages as usize];
        let plan = Plan {
            job: spec.id(),
            epoch: 0,
            stages: (0..stages)
                .map(|stage| Layers::new(edge(stage), edge(stage + 1)))
                .collect(),
            replicas: vec![Replica {
                start: 0,
                end: spec.microbatches,
                workers: workers.iter().map(|number| key(*number).public()).collect(),
            }],
        };
        let library = Library {
            specs: BTreeMap::from([(Digest::of_value(Domain::Blob, spec), spec.clone())]),
            states: BTreeMap::new(),
            data: new.data.clone(),
        };
        Self {
            workers: workers.to_vec(),
            new,
            plan,
            library,
        }
    }

    /// Has another key take the place of the first worker, under a new plan. Gives its id.
    pub(super) fn replace_first(&mut self) -> WorkerId {
        let number = self.workers.iter().max().expect("a worker") + 1;
        let id = key(number).public();
        self.workers[0] = number;
        self.plan.replicas[0].workers[0] = id;
        self.plan.epoch += 1;
        id
    }

    pub(super) fn spec(&self) -> &JobSpec {
        &self.new.submission.spec
    }

    /// Does the step of an attempt from a state. With `kind`, the first worker lies so.
    pub(super) fn work(
        &mut self,
        (started, attempt): (&Signed, AttemptId),
        (step, previous): (u32, Digest),
        before: &[StateEntry],
        kind: Option<Kind>,
    ) -> DoneStep {
        let mut workers = self.seated(step, before, kind);
        let (plan, job) = (self.plan.clone(), self.plan.job);
        let begin = ToWorker::Step {
            job,
            epoch: plan.epoch,
            step,
            started: started.clone(),
        };
        let said = self.tell(&mut workers, &begin);
        let firsts: BTreeMap<WorkerId, FirstHalfSaid> =
            said.into_iter().filter_map(first_half_said).collect();
        let (microbatches, targets) = self.microbatches(step);
        let scalars = scalars(&plan, &firsts, (step, targets));
        let told = ToWorker::Scalars {
            job,
            epoch: plan.epoch,
            scalars: scalars.clone(),
        };
        let said = self.tell(&mut workers, &told);
        let claims = claims(&plan, firsts, said, scalars);
        let opened: Vec<_> = claims
            .claims
            .iter()
            .map(|claim| claim.claim.open())
            .collect();
        let opened: Result<Vec<_>, _> = opened.into_iter().collect();
        let opened = opened.expect("claims of our own workers");
        let after = merged_state(self.spec(), &opened.iter().collect::<Vec<_>>());
        let after = after.expect("all tensors");
        let rules = StepRules {
            spec: self.spec(),
            job,
            plan: &plan,
            plan_digest: plan.digest(),
            attempt,
            step,
            before,
            microbatches: &microbatches,
        };
        let record = step_record(&rules, previous, &claims.scalars, &after);
        let openings = workers.into_iter().map(|(id, mut worker)| {
            let opened = worker.openings.remove(&(step, plan.epoch));
            (id, opened.expect("what it has just done"))
        });
        DoneStep {
            record: record.expect("losses and norms"),
            openings: openings.collect(),
            claims,
            after,
        }
    }

    /// Workers that hold their stages, as they are before a step.
    fn seated(
        &mut self,
        step: u32,
        before: &[StateEntry],
        kind: Option<Kind>,
    ) -> BTreeMap<WorkerId, Worker> {
        let state = StateManifest {
            step,
            entries: before.to_vec(),
        };
        let address = Digest::of_value(Domain::Blob, &state);
        self.library.states.insert(address, state);
        let assignment = Assignment {
            plan: self.plan.clone(),
            spec: Digest::of_value(Domain::Blob, self.spec()),
            state: address,
            endpoints: Vec::new(),
            recompute: false,
            depth: 1,
        };
        let lie = kind.map(|kind| Lie { kind, from_step: 0 });
        let seat = |number: u8| {
            let lie = lie.filter(|_| number == self.workers[0]);
            let mut worker = Worker::new(key(number), lie);
            let assign = ToWorker::Assign(Box::new(assignment.clone()));
            worker.told(&self.library, assign);
            (worker.id(), worker)
        };
        let seated = self.workers.iter().map(|number| seat(*number)).collect();
        self.library.states.remove(&address);
        seated
    }

    /// Tells all workers something, and passes on what they send each other. Gives what they say.
    fn tell(
        &self,
        workers: &mut BTreeMap<WorkerId, Worker>,
        message: &ToWorker,
    ) -> Vec<(WorkerId, ToCoordinator)> {
        let told = |(id, worker): (&WorkerId, &mut Worker)| {
            let acts = worker.told(&self.library, message.clone());
            acts.into_iter().map(|act| (*id, act)).collect::<Vec<_>>()
        };
        let mut acts: Vec<(WorkerId, Act)> = workers.iter_mut().flat_map(told).collect();
        let mut said = Vec::new();
        while let Some((by, act)) = acts.pop() {
            match act {
                Act::Push(frame) => {
                    let to = frame.to;
                    let worker = workers.get_mut(&to).expect("a worker of the plan");
                    let next = worker.received(frame).into_iter();
                    acts.extend(next.map(|act| (to, act)));
                }
                Act::Say(message) => said.push((by, message)),
                Act::Store(_) | Act::Leave => {}
            }
        }
        said
    }

    /// The digests of the microbatches of a step, and how many tokens its loss counts.
    fn microbatches(&self, step: u32) -> (Vec<Digest>, u64) {
        let (spec, data) = (self.spec(), &self.new.data);
        let mut batches = BatchPlan::new(spec, data.sequences.len() as u64);
        let mut targets = 0;
        let digests = (0..spec.microbatches).map(|microbatch| {
            let sequences = batches.sequences(step, microbatch);
            let of = |&index: &u64| u64::from(data.sequences[index as usize].targets);
            targets += sequences.iter().map(of).sum::<u64>();
            microbatch_digest(data, &sequences)
        });
        let digests = digests.collect();
        (digests, targets)
    }
}

impl DoneStep {
    /// Its claims, with which of their leaves are right.
    pub(super) fn seen(&self) -> Vec<SeenClaim> {
        let seen = |claim: &WorkerClaim| {
            let worker = claim.claim.signer;
            let leaves = claim.leaves.iter();
            let leaves = leaves.map(|leaf| (leaf.digest(), Some(self.is_right(worker, leaf))));
            SeenClaim {
                worker,
                leaves: leaves.collect(),
            }
        };
        self.claims.claims.iter().map(seen).collect()
    }

    /// What convicts a worker of a leaf that is wrong.
    pub(super) fn conviction(&self, (worker, index): (WorkerId, u32)) -> Option<Conviction> {
        let mut claims = self.claims.claims.iter();
        let claim = claims.find(|claim| claim.claim.signer == worker)?;
        let (leaf, openings) = (&claim.leaves[index as usize], &self.openings[&worker]);
        let of = |half: SignedHalf| ClaimedLeaf::of(&half.signed, &half.leaves, &leaf.digest());
        Some(Conviction::WrongResult {
            claimed: claim.halves().into_iter().find_map(of)?,
            inputs: inputs(leaf, openings),
            computed: rerun(leaf, openings),
        })
    }

    fn is_right(&self, worker: WorkerId, leaf: &Leaf) -> bool {
        let computed = rerun(leaf, &self.openings[&worker]);
        leaf.outputs.iter().all(|port| computed.contains(port))
    }
}

fn first_half_said((by, said): (WorkerId, ToCoordinator)) -> Option<(WorkerId, FirstHalfSaid)> {
    match said {
        ToCoordinator::Computed {
            first_half,
            leaves,
            losses,
            norms,
            ..
        } => Some((
            by,
            FirstHalfSaid {
                first_half,
                leaves,
                losses,
                norms,
            },
        )),
        _ => None,
    }
}

/// The scalars of a step, as a coordinator puts them together.
fn scalars(
    plan: &Plan,
    firsts: &BTreeMap<WorkerId, FirstHalfSaid>,
    (step, targets): (u32, u64),
) -> Scalars {
    let firsts = plan.workers().map(|(_, worker)| &firsts[&worker]);
    let mut scalars = Scalars {
        step,
        first_halves: Vec::new(),
        losses: Vec::new(),
        norms: Vec::new(),
        targets,
    };
    for first in firsts {
        scalars
            .first_halves
            .push(first_half_digest(&first.first_half));
        scalars.losses.extend(&first.losses);
        scalars.norms.extend(&first.norms);
    }
    scalars.losses.sort_by_key(|loss| loss.microbatch);
    scalars.norms.sort_by_key(|norm| norm.tensor);
    scalars
}

/// The claims of a step, in the order of the plan.
fn claims(
    plan: &Plan,
    mut firsts: BTreeMap<WorkerId, FirstHalfSaid>,
    said: Vec<(WorkerId, ToCoordinator)>,
    scalars: Scalars,
) -> StepClaims {
    let mut updates: BTreeMap<WorkerId, (Signed, Vec<Leaf>)> = said
        .into_iter()
        .filter_map(|(by, said)| match said {
            ToCoordinator::Updated { claim, leaves } => Some((by, (claim, leaves))),
            _ => None,
        })
        .collect();
    let claim = |(_, id): (Slot, WorkerId)| {
        let first = firsts.remove(&id).expect("a first half of each");
        let (claim, leaves) = updates.remove(&id).expect("a claim of each");
        WorkerClaim {
            first_half: first.first_half,
            claim,
            leaves: [first.leaves, leaves].concat(),
        }
    };
    StepClaims {
        step: scalars.step,
        claims: plan.workers().map(claim).collect(),
        scalars,
    }
}
