//! A step being done, in two phases: all gradients, then all updates.

use std::collections::BTreeMap;

use concord_proto::AttemptId;
use concord_proto::manifest::StateEntry;
use concord_proto::session::Scalars;
use concord_proto::{
    Claim, Digest, JobId, JobSpec, Leaf, LeafPhase, Signed, SignedHalf, StepRecord, WorkerId,
    first_half_digest,
};
use concord_verify::training::bundle::StepClaims;
use concord_verify::training::{
    self as rules, Breach, Claimed, ClaimedLeaves, Disagreement, SignedFirst, StepRules,
    StepValues, WorkerClaim,
};

use super::Time;
use super::active_plan::ActivePlan;
use super::audits::SignedStep;
use super::dispute::{Dispute, DisputeSubject};

/// A step being done.
pub(super) struct Attempt {
    id: AttemptId,
    step: u32,
    started: Time,
    /// Since when the present phase waits.
    since: Time,
    /// Digests of the microbatches, and how many tokens the loss counts.
    microbatches: Vec<Digest>,
    targets: u64,
    computed: BTreeMap<WorkerId, Computed>,
    /// Present in the second phase.
    scalars: Option<Scalars>,
    claims: BTreeMap<WorkerId, GivenClaim>,
    /// Audits that must be through before the step can be final.
    dispute: Option<Dispute>,
}

/// What a worker reports after the first phase.
pub(super) struct Computed {
    /// The first half of its claim.
    pub(super) first_half: Signed,
    pub(super) leaves: Vec<Leaf>,
    pub(super) values: StepValues,
}

impl Computed {
    pub(super) fn new(first_half: Signed, leaves: Vec<Leaf>, values: StepValues) -> Self {
        Self {
            first_half,
            leaves,
            values,
        }
    }
}

/// What a worker reports after the second phase.
struct GivenClaim {
    signed: Signed,
    claim: Claim,
    leaves: Vec<Leaf>,
}

/// What the reports of a step are checked against, apart from the step itself.
#[derive(Clone, Copy)]
pub(super) struct Basis<'a> {
    pub(super) job: JobId,
    pub(super) spec: &'a JobSpec,
    pub(super) active: &'a ActivePlan,
    /// The state before the step.
    pub(super) before: &'a [StateEntry],
    /// Entries of all attempts so far, by number.
    pub(super) attempts: &'a [Digest],
}

/// What follows from a report after the first phase.
pub(super) enum FirstPhase {
    /// Others have yet to report, or this report was not asked for.
    Waits,
    Breach(Breach),
    /// It is of another attempt, or names another history: nobody can tell whose fault that is.
    OtherAttempt,
    /// All have reported, and a re-run is to show who is right.
    Dispute(DisputeSubject),
    /// All have reported: the second phase begins.
    Complete(Scalars),
}

/// What follows from a report after the second phase.
pub(super) enum SecondPhase {
    /// Others have yet to report, or this report was not asked for.
    Waits,
    Breach(Breach),
    /// Two workers differ, and no rule tells who is wrong.
    Differ(Disagreement),
    /// All claims are in and fit each other.
    Agree,
}

/// A step that is final, taken apart.
pub(super) struct FinishedStep {
    pub(super) id: AttemptId,
    pub(super) claims: StepClaims,
    pub(super) started: Time,
}

impl Attempt {
    pub(super) fn new(
        now: Time,
        (id, step): (AttemptId, u32),
        microbatches: Vec<Digest>,
        targets: u64,
    ) -> Self {
        Self {
            id,
            step,
            started: now,
            since: now,
            microbatches,
            targets,
            computed: BTreeMap::new(),
            scalars: None,
            claims: BTreeMap::new(),
            dispute: None,
        }
    }

    pub(super) fn id(&self) -> AttemptId {
        self.id
    }

    pub(super) fn step(&self) -> u32 {
        self.step
    }

    /// Since when the present phase waits.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn is_first_phase(&self) -> bool {
        self.scalars.is_none()
    }

    pub(super) fn is_disputed(&self) -> bool {
        self.dispute.is_some()
    }

    /// Whether a worker has not reported in the present phase.
    pub(super) fn awaits(&self, worker: &WorkerId) -> bool {
        match self.scalars {
            None => !self.computed.contains_key(worker),
            Some(_) => !self.claims.contains_key(worker),
        }
    }

    /// In the second phase, a worker that has not reported its update.
    pub(super) fn silent(&self, workers: &[WorkerId]) -> Option<WorkerId> {
        self.scalars.as_ref()?;
        let mut workers = workers.iter().copied();
        workers.find(|id| !self.claims.contains_key(id))
    }

    /// What the claims of the step are checked against.
    fn rules<'a>(&'a self, basis: &Basis<'a>) -> StepRules<'a> {
        StepRules {
            spec: basis.spec,
            job: basis.job,
            plan: basis.active.plan(),
            plan_digest: basis.active.digest(),
            attempt: self.id,
            step: self.step,
            before: basis.before,
            microbatches: &self.microbatches,
        }
    }

    /// A worker is through with the first phase.
    pub(super) fn take_computed(
        &mut self,
        now: Time,
        basis: &Basis,
        worker: WorkerId,
        computed: Computed,
    ) -> FirstPhase {
        let is_seat = basis.active.has(&worker);
        if !is_seat || self.computed.contains_key(&worker) {
            return FirstPhase::Waits;
        }
        let rules = self.rules(basis);
        let Computed {
            first_half,
            leaves,
            values,
        } = &computed;
        if rules::names_other_history(&rules, basis.attempts, first_half) {
            return FirstPhase::OtherAttempt;
        }
        if let Err(breach) = rules::check_first_half(&rules, worker, first_half, leaves, values) {
            return FirstPhase::Breach(breach);
        }
        self.computed.insert(worker, computed);
        self.complete_first_phase(now, basis)
    }

    /// Once all first halves are there, puts losses and norms together.
    fn complete_first_phase(&mut self, now: Time, basis: &Basis) -> FirstPhase {
        let workers = basis.active.workers();
        let all_in = workers.iter().all(|id| self.computed.contains_key(id));
        if !all_in || self.scalars.is_some() {
            return FirstPhase::Waits;
        }
        let of = |worker: &WorkerId| ClaimedLeaves {
            worker: *worker,
            signed: &self.computed[worker].first_half,
            leaves: &self.computed[worker].leaves,
        };
        let claimed: Vec<ClaimedLeaves> = workers.iter().map(of).collect();
        if let Err(breach) = rules::check_links(&self.rules(basis), &claimed) {
            return FirstPhase::Breach(breach);
        }
        let scalars = match self.joined_values(basis.spec, &workers) {
            Ok(scalars) => scalars,
            Err(subject) => return FirstPhase::Dispute(subject),
        };
        if let Some(what) = rules::not_a_number(basis.spec, &scalars) {
            return FirstPhase::Dispute(DisputeSubject::NotFinite { what });
        }
        self.since = now;
        self.scalars = Some(scalars.clone());
        FirstPhase::Complete(scalars)
    }

    /// The losses and norms of all workers, unless two of them differ: what came in is the same, so
    /// one of the two is wrong.
    fn joined_values(
        &self,
        spec: &JobSpec,
        workers: &[WorkerId],
    ) -> Result<Scalars, DisputeSubject> {
        let mut scalars = Scalars {
            step: self.step,
            first_halves: Vec::new(),
            losses: Vec::new(),
            norms: Vec::new(),
            targets: self.targets,
        };
        let mut norms = BTreeMap::new();
        for worker in workers {
            let computed = &self.computed[worker];
            let values = &computed.values;
            scalars
                .first_halves
                .push(first_half_digest(&computed.first_half));
            scalars.losses.extend(&values.losses);
            for norm in &values.norms {
                let (first, by) = *norms.entry(norm.tensor).or_insert((*norm, *worker));
                if first != *norm {
                    let name = &spec.trainable[norm.tensor as usize].name;
                    return Err(DisputeSubject::Differ {
                        between: [by, *worker],
                        phase: LeafPhase::Norm,
                        what: format!("the gradient norm of {name}"),
                    });
                }
            }
        }
        scalars.losses.sort_by_key(|loss| loss.microbatch);
        scalars.norms = norms.into_values().map(|(norm, _)| norm).collect();
        Ok(scalars)
    }

    /// A worker is through with the second phase.
    pub(super) fn take_claim(
        &mut self,
        basis: &Basis,
        worker: WorkerId,
        signed: Signed,
        leaves: Vec<Leaf>,
    ) -> SecondPhase {
        // A claim of a worker that is not asked for one now is of an earlier step: late, not
        // dishonest. A worker that is asked has reported the first phase of this very step, and all
        // that it sent before has arrived: a claim of another step is then a replay.
        let asked = self.scalars.as_ref().zip(self.computed.get(&worker));
        let Some((scalars, computed)) = asked.filter(|_| !self.claims.contains_key(&worker)) else {
            return SecondPhase::Waits;
        };
        let first = SignedFirst {
            signed: &computed.first_half,
            leaves: &computed.leaves,
        };
        let rules = self.rules(basis);
        let checked = rules::check_claim(&rules, worker, first, scalars, &signed, &leaves);
        let claim = match checked {
            Ok(claim) => claim,
            Err(breach) => return SecondPhase::Breach(breach),
        };
        let given = GivenClaim {
            signed,
            claim,
            leaves,
        };
        self.claims.insert(worker, given);
        self.compare_claims(basis)
    }

    /// Once all claims are in, compares them.
    fn compare_claims(&self, basis: &Basis) -> SecondPhase {
        let claimed = basis.active.plan().workers().map(|(_, worker)| {
            let given = self.claims.get(&worker)?;
            Some(Claimed {
                worker,
                claim: &given.claim,
            })
        });
        let Some(claimed) = claimed.collect::<Option<Vec<Claimed>>>() else {
            return SecondPhase::Waits;
        };
        match rules::check_agreement(basis.spec, &claimed) {
            Ok(()) => SecondPhase::Agree,
            Err(disagreement) => SecondPhase::Differ(disagreement),
        }
    }

    /// The state that the claims give; none where they leave a tensor out.
    pub(super) fn state_after(&self, spec: &JobSpec) -> Option<Vec<StateEntry>> {
        let claims: Vec<&Claim> = self.claims.values().map(|given| &given.claim).collect();
        rules::merged_state(spec, &claims)
    }

    /// The record that the claims give after the record `head`.
    pub(super) fn record(&self, basis: &Basis, head: Digest) -> Option<StepRecord> {
        let after = self.state_after(basis.spec)?;
        rules::step_record(&self.rules(basis), head, self.scalars.as_ref()?, &after)
    }

    /// Takes the step apart; none where its claims were never asked for.
    pub(super) fn finish(mut self, workers: &[WorkerId]) -> Option<FinishedStep> {
        let mut claims = StepClaims {
            step: self.step,
            scalars: self.scalars?,
            claims: Vec::new(),
        };
        for worker in workers {
            let halves = self.computed.remove(worker).zip(self.claims.remove(worker));
            let claim = halves.map(|(first, second)| WorkerClaim {
                first_half: first.first_half,
                claim: second.signed,
                leaves: [first.leaves, second.leaves].concat(),
            });
            claims.claims.extend(claim);
        }
        Some(FinishedStep {
            id: self.id,
            claims,
            started: self.started,
        })
    }

    /// What workers have signed so far.
    pub(super) fn signed(&self) -> SignedStep {
        let half = |signed: &Signed, leaves: &[Leaf]| SignedHalf {
            signed: signed.clone(),
            leaves: leaves.to_vec(),
        };
        let first = self.computed.values();
        let first = first.map(|given| half(&given.first_half, &given.leaves));
        let second = self.claims.values();
        let second = second.map(|given| half(&given.signed, &given.leaves));
        first.chain(second).collect()
    }

    /// The leaves that a dispute is decided by, each with its place among those of its worker.
    pub(super) fn disputed_leaves(&self, subject: &DisputeSubject) -> Vec<(WorkerId, u32, Leaf)> {
        let of = |(id, first): (&WorkerId, &Computed)| {
            let second = self.claims.get(id);
            let second = second.map_or(&[][..], |given| &given.leaves);
            let leaves = first.leaves.iter().chain(second);
            let chosen = (0..).zip(leaves);
            let chosen = chosen.filter(|(_, leaf)| subject.concerns(id, leaf));
            let chosen = chosen.map(|(index, leaf)| (*id, index, leaf.clone()));
            chosen.collect::<Vec<_>>()
        };
        self.computed.iter().flat_map(of).collect()
    }

    pub(super) fn open_dispute(&mut self, dispute: Dispute) {
        self.dispute = Some(dispute);
    }

    /// A leaf was re-run and is right. Gives what the dispute is about, once all are through.
    pub(super) fn note_right(&mut self, number: u64) -> Option<DisputeSubject> {
        let dispute = self.dispute.as_mut()?;
        match dispute.note_right(number) {
            true => self.dispute.take().map(Dispute::into_subject),
            false => None,
        }
    }

    pub(super) fn take_dispute(&mut self) -> Option<Dispute> {
        self.dispute.take()
    }
}
