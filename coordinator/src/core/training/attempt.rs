//! A step being done, in two phases: all gradients, then all updates.

use std::collections::BTreeMap;

use concord_proto::draw::nonce_commitment;
use concord_proto::manifest::StateEntry;
use concord_proto::session::Scalars;
use concord_proto::{
    Claim, Digest, JobId, JobSpec, Leaf, MicrobatchLoss, Signed, StepRecord, TensorNorm, WorkerId,
};
use concord_verify::training::bundle::StepClaims;
use concord_verify::training::{self as rules, Breach, Claimed, Disagreement, StepRules};

use super::Time;
use super::active_plan::ActivePlan;
use super::dispute::{Dispute, DisputeSubject};

/// A step being done.
pub(super) struct Attempt {
    step: u32,
    nonce: [u8; 32],
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
    pub(super) losses: Vec<MicrobatchLoss>,
    pub(super) norms: Vec<TensorNorm>,
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
}

/// What follows from a report after the first phase.
pub(super) enum FirstPhase {
    /// Others have yet to report, or this report was not asked for.
    Waits,
    Breach(Breach),
    /// Two workers differ in what they should have alike.
    Differ {
        between: [WorkerId; 2],
        what: String,
    },
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
    pub(super) claims: StepClaims,
    pub(super) nonce: [u8; 32],
    pub(super) started: Time,
}

impl Attempt {
    pub(super) fn new(
        now: Time,
        step: u32,
        nonce: [u8; 32],
        microbatches: Vec<Digest>,
        targets: u64,
    ) -> Self {
        Self {
            step,
            nonce,
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

    pub(super) fn step(&self) -> u32 {
        self.step
    }

    /// Since when the present phase waits.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    pub(super) fn nonce_commitment(&self) -> Digest {
        nonce_commitment(&self.nonce)
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
            step: self.step,
            before: basis.before,
            microbatches: &self.microbatches,
            scalars: self.scalars.as_ref(),
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
        let Some(slot) = basis.active.plan().slot(&worker) else {
            return FirstPhase::Waits;
        };
        let (rules, Computed { losses, norms }) = (self.rules(basis), &computed);
        if let Err(breach) = rules::check_computed(&rules, worker, slot, losses, norms) {
            return FirstPhase::Breach(breach);
        }
        self.computed.entry(worker).or_insert(computed);
        self.complete_first_phase(now, &basis.active.workers())
    }

    /// Once all gradients are there, puts losses and norms together.
    fn complete_first_phase(&mut self, now: Time, workers: &[WorkerId]) -> FirstPhase {
        let all_in = workers.iter().all(|id| self.computed.contains_key(id));
        if !all_in || self.scalars.is_some() {
            return FirstPhase::Waits;
        }
        let mut losses: Vec<MicrobatchLoss> = Vec::new();
        let mut norms: BTreeMap<u32, (TensorNorm, WorkerId)> = BTreeMap::new();
        let mut differing = None;
        for worker in workers {
            let computed = &self.computed[worker];
            losses.extend(&computed.losses);
            for norm in &computed.norms {
                let (first, by) = *norms.entry(norm.tensor).or_insert((*norm, *worker));
                if first != *norm {
                    differing.get_or_insert((by, *worker, norm.tensor));
                }
            }
        }
        if let Some((first, second, tensor)) = differing {
            return FirstPhase::Differ {
                between: [first, second],
                what: format!("the gradient norm of trained tensor {tensor}"),
            };
        }
        losses.sort_by_key(|loss| loss.microbatch);
        let scalars = Scalars {
            step: self.step,
            losses,
            norms: norms.into_values().map(|(norm, _)| norm).collect(),
            targets: self.targets,
        };
        self.since = now;
        self.scalars = Some(scalars.clone());
        FirstPhase::Complete(scalars)
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
        let is_asked = self.scalars.is_some() && self.computed.contains_key(&worker);
        if !is_asked || self.claims.contains_key(&worker) {
            return SecondPhase::Waits;
        }
        let rules = self.rules(basis);
        let checked = rules::check_claim(&rules, worker, &signed, &leaves);
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
                signed: &given.signed,
                claim: &given.claim,
                leaves: &given.leaves,
            })
        });
        let Some(claimed) = claimed.collect::<Option<Vec<Claimed>>>() else {
            return SecondPhase::Waits;
        };
        let rules = self.rules(basis);
        if let Err(breach) = rules::check_links(&rules, &claimed) {
            return SecondPhase::Breach(breach);
        }
        match rules::check_agreement(rules.spec, &claimed) {
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
        let claim = &self.claims.values().next()?.claim;
        Some(rules::step_record(&self.rules(basis), head, claim, &after))
    }

    /// Takes the step apart; none where its claims were never asked for.
    pub(super) fn finish(mut self, workers: &[WorkerId]) -> Option<FinishedStep> {
        let mut claims = StepClaims {
            step: self.step,
            scalars: self.scalars?,
            claims: Vec::new(),
        };
        for worker in workers {
            let given = self.claims.remove(worker);
            let claim = given.map(|given| (given.signed, given.leaves));
            claims.claims.extend(claim);
        }
        Some(FinishedStep {
            claims,
            nonce: self.nonce,
            started: self.started,
        })
    }

    /// The claims that are in.
    pub(super) fn submitted(&self) -> Option<StepClaims> {
        let claims = self.claims.values();
        let claims = claims.map(|given| (given.signed.clone(), given.leaves.clone()));
        Some(StepClaims {
            step: self.step,
            scalars: self.scalars.clone()?,
            claims: claims.collect(),
        })
    }

    /// The leaves that a dispute is decided by.
    pub(super) fn disputed_leaves(&self, subject: &DisputeSubject) -> Vec<(WorkerId, Leaf)> {
        let claims = self.claims.iter();
        let leaves = claims.flat_map(|(worker, given)| {
            let chosen = given.leaves.iter();
            let chosen = chosen.filter(move |leaf| subject.concerns(worker, leaf));
            chosen.map(move |leaf| (*worker, leaf.clone()))
        });
        leaves.collect()
    }

    pub(super) fn open_dispute(&mut self, dispute: Dispute) {
        self.dispute = Some(dispute);
    }

    pub(super) fn dispute_mut(&mut self) -> Option<&mut Dispute> {
        self.dispute.as_mut()
    }

    pub(super) fn take_dispute(&mut self) -> Option<Dispute> {
        self.dispute.take()
    }
}
