//! Leaves that are re-run: drawn, handed to checkers, and handed on where no answer comes.

mod contradiction;
mod distrust;
mod opinions;
mod orders;
mod referee;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_proto::draw::{AuditRate, drawn};
use concord_proto::ledger::LedgerEvent;
use concord_proto::{Digest, JobId, Leaf, LeafKey, Signed, SignedHalf, WorkerId};
use concord_verify::training::WorkerClaim;
use concord_verify::training::bundle::StepClaims;

use super::charge::Charge;
use super::journal::Journal;
use super::planned_step::PlannedStep;
use super::{
    Change, CoreEffect, EventContext, JobOrder, JobProgress, PersistedAgreement, PersistedAudit,
    Time,
};
use contradiction::Contradiction;

/// Why a leaf is re-run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// The draw chose it.
    Drawn,
    /// The secret of an auditor chose it, for itself.
    Own { auditor: WorkerId },
    /// It was altered, to see whether the checker looks. `original` is what the worker claims.
    Canary {
        checker: WorkerId,
        original: Box<Leaf>,
    },
    /// Its step cannot be final before it is re-run.
    Dispute,
    /// A checker that was shown an altered copy did not find the alteration, or something else.
    Doubt,
}

/// How far an audit is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Waits for somebody to re-run it, since then.
    Queued(Time),
    /// Somebody re-runs it.
    Ordered {
        order: u64,
        auditor: WorkerId,
        since: Time,
    },
    /// It is said to be right, by a checker that has a canary to answer yet.
    Held { auditor: WorkerId, verdict: Signed },
    /// The coordinator's own referee re-runs it.
    Refereed { order: u64 },
}

/// A leaf of the same step that can be altered to test the checker.
#[derive(Clone, Debug)]
struct Bait {
    worker: WorkerId,
    leaf: Leaf,
}

/// A leaf to be re-run.
#[derive(Clone, Debug)]
struct LeafAudit {
    at: PlannedStep,
    worker: WorkerId,
    /// As it is ordered.
    leaf: Leaf,
    purpose: Purpose,
    standing: Standing,
    /// Who is not asked, or not again.
    tried: BTreeSet<WorkerId>,
    /// Verdicts that do not fit the claim: a re-run decides which of the two is wrong.
    contradictions: Vec<Contradiction>,
    /// How often the referee could not re-run it.
    failed_reruns: u32,
    /// The referee has no memory for it: others give their opinion.
    is_beyond_referee: bool,
    bait: Option<Bait>,
    /// What the workers of the step have signed.
    signed: Arc<SignedStep>,
}

/// The halves of claims that workers have signed for a step, each with its leaves.
pub(super) type SignedStep = Vec<SignedHalf>;

/// A leaf that was found right. A recent one can be re-run again.
#[derive(Debug)]
struct AuditedLeaf {
    agreement: PersistedAgreement,
    audit: Option<LeafAudit>,
}

/// The leaves of each worker of a step that checkers may ask for.
pub(super) type AuditedLeaves = BTreeMap<WorkerId, BTreeSet<LeafKey>>;

/// All audits of a job.
#[derive(Debug)]
pub(super) struct LeafAudits {
    job: JobId,
    next: u64,
    open: BTreeMap<u64, LeafAudit>,
    /// Checkers that had a canary in this job, and answered it.
    tested: BTreeSet<WorkerId>,
    /// Who is asked nothing more, because others contradicted it and nothing decides who is right.
    left_out: BTreeSet<WorkerId>,
    agreements: Vec<AuditedLeaf>,
    counts: AuditCounts,
    /// Orders that each auditor had yet to answer when unanswered ones were taken back last, and
    /// those given since.
    asked: BTreeMap<WorkerId, usize>,
    /// How many of the leaves that it has drawn itself each auditor has left unanswered, in a row.
    unanswered: BTreeMap<WorkerId, u32>,
}

/// What came of the drawn leaves that are closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AuditCounts {
    pub(super) agreed: u64,
    pub(super) inconclusive: u64,
}

/// A leaf that waits for somebody to re-run it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    number: u64,
    since: Time,
}

/// What is to follow from audits, in this order.
pub(super) enum AuditDecision {
    /// A verdict that a leaf is right counts.
    Accept {
        number: u64,
        auditor: WorkerId,
        verdict: Signed,
    },
    Convict(Charge),
    /// A leaf of the disputed step is right.
    DisputeAgrees {
        number: u64,
    },
    /// A leaf of the disputed step cannot be audited.
    DisputeUndecided {
        /// The worker whose inputs nobody got; none where nobody is there to ask for them.
        withheld_by: Option<WorkerId>,
    },
    /// One statement contradicts another, and no re-run of the referee can decide: the job does
    /// without one of the parties.
    LeaveOut {
        party: WorkerId,
        /// The step that is void with it, where it was final.
        void: Option<u32>,
        reason: String,
    },
}

impl LeafAudits {
    pub(super) fn restore(
        job: JobId,
        progress: &JobProgress,
        persisted: Vec<PersistedAudit>,
        agreements: Vec<PersistedAgreement>,
        claims: &[StepClaims],
    ) -> Self {
        let signed = claims.iter().map(|step| (step.step, halves(step)));
        let signed: BTreeMap<u32, Arc<SignedStep>> = signed.collect();
        let agreements = agreements.into_iter().map(|agreement| AuditedLeaf {
            agreement,
            audit: None,
        });
        let mut audits = Self {
            job,
            next: 0,
            open: BTreeMap::new(),
            tested: BTreeSet::new(),
            left_out: progress.set_aside.iter().copied().collect(),
            agreements: agreements.collect(),
            counts: AuditCounts {
                agreed: progress.agreed,
                inconclusive: progress.inconclusive,
            },
            asked: BTreeMap::new(),
            unanswered: BTreeMap::new(),
        };
        for audit in persisted {
            audits.next = audits.next.max(audit.number);
            let at = PlannedStep {
                step: audit.step,
                epoch: audit.epoch,
            };
            let now = Time::default();
            let purpose = match audit.is_drawn {
                true => Purpose::Drawn,
                false => Purpose::Doubt,
            };
            // Without them, whoever lied about it can be left out, and not be convicted.
            let signed = signed.get(&audit.step).cloned().unwrap_or_default();
            let mut new = LeafAudit::new(now, at, (audit.worker, audit.leaf), purpose, signed);
            let contradictions = audit.contradictions.into_iter();
            new.contradictions = contradictions.filter_map(Contradiction::restore).collect();
            new.tried = new
                .contradictions
                .iter()
                .map(Contradiction::auditor)
                .collect();
            audits.open.insert(audit.number, new);
        }
        audits.next += 1;
        audits
    }

    /// A number for an audit, an order or a check: none is used twice.
    pub(super) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn counts(&self) -> AuditCounts {
        self.counts
    }

    pub(super) fn are_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// The first step with an open audit.
    pub(super) fn oldest_step(&self) -> Option<u32> {
        self.open_steps().first().copied()
    }

    /// The steps with an open audit.
    pub(super) fn open_steps(&self) -> BTreeSet<u32> {
        self.open.values().map(|audit| audit.at.step).collect()
    }

    /// Whether a leaf of a worker is being audited.
    pub(super) fn concern(&self, worker: &WorkerId) -> bool {
        self.open.values().any(|audit| audit.worker == *worker)
    }

    /// Leaves that a member re-runs, or has re-run with its verdict still held back.
    pub(super) fn asked_of(&self, member: &WorkerId) -> usize {
        let asked = |audit: &&LeafAudit| audit.auditor() == Some(*member);
        self.open.values().filter(asked).count()
    }

    /// The first step of which a leaf of `worker` was drawn and not audited.
    pub(super) fn first_unaudited(&self, worker: &WorkerId) -> Option<u32> {
        let is_open = |audit: &&LeafAudit| {
            let counts = matches!(
                audit.purpose,
                Purpose::Drawn | Purpose::Own { .. } | Purpose::Doubt
            );
            audit.worker == *worker && counts
        };
        let open = self.open.values().filter(is_open);
        open.map(|audit| audit.at.step).min()
    }

    fn add(&mut self, audit: LeafAudit) -> u64 {
        let number = self.next_number();
        self.open.insert(number, audit);
        number
    }

    /// Has leaves of a step re-run before it can be final. Gives their numbers.
    pub(super) fn dispute(
        &mut self,
        now: Time,
        at: PlannedStep,
        leaves: Vec<(WorkerId, Leaf)>,
        signed: SignedStep,
    ) -> BTreeSet<u64> {
        let signed = Arc::new(signed);
        let numbers = leaves.into_iter().map(|of| {
            let (purpose, signed) = (Purpose::Dispute, signed.clone());
            self.add(LeafAudit::new(now, at, of, purpose, signed))
        });
        numbers.collect()
    }

    /// Draws the leaves of a step that was just made final. Gives, for each worker, those that
    /// checkers may ask for: what is drawn, and what may be altered to test them.
    pub(super) fn draw(
        &mut self,
        context: &mut EventContext,
        job: &JobOrder,
        at: PlannedStep,
        seed: &Digest,
        rates: &[AuditRate],
        claims: &StepClaims,
    ) -> AuditedLeaves {
        let mut audited = AuditedLeaves::new();
        let mut ask = |worker: WorkerId, leaf: &Leaf| {
            audited.entry(worker).or_default().insert(leaf.key());
        };
        let all: Vec<(WorkerId, &Leaf)> = claims
            .claims
            .iter()
            .flat_map(|claim| claim.leaves.iter().map(|leaf| (claim.claim.signer, leaf)))
            .filter(|(_, leaf)| !leaf.outputs.is_empty())
            .collect();
        let decides = job.spec().decides(at.step);
        let mut signed = None;
        for (claim, rate) in claims.claims.iter().zip(rates) {
            for index in drawn(seed, rate, claim.leaves.len() as u32, decides) {
                let leaf = claim.leaves[index as usize].clone();
                ask(rate.worker, &leaf);
                let of = (rate.worker, leaf);
                let signed = signed.get_or_insert_with(|| halves(claims)).clone();
                let (now, purpose) = (context.now, Purpose::Drawn);
                let audit = LeafAudit::new(now, at, of, purpose, signed);
                let number = self.add(audit);
                let lot = context.lot(&self.job, "bait", [number, 0]);
                let bait = all.get(lot as usize % all.len().max(1));
                bait.into_iter()
                    .for_each(|(worker, leaf)| ask(*worker, leaf));
                if let Some(audit) = self.open.get_mut(&number) {
                    audit.bait = bait.map(|(worker, leaf)| Bait {
                        worker: *worker,
                        leaf: (*leaf).clone(),
                    });
                    let (job, audit) = (self.job, audit.persisted(number));
                    context.out.persist(Change::AuditOpened { job, audit });
                }
            }
        }
        audited
    }

    /// An auditor has drawn a leaf of a step that is final: it re-runs it itself. After a restart
    /// nobody knows of it, and the attempt is unsettled.
    pub(super) fn add_own(
        &mut self,
        now: Time,
        (auditor, signed): (WorkerId, Arc<SignedStep>),
        at: PlannedStep,
        (worker, leaf): (WorkerId, &Leaf),
    ) {
        let (of, purpose) = ((worker, leaf.clone()), Purpose::Own { auditor });
        self.add(LeafAudit::new(now, at, of, purpose, signed));
    }

    /// Closes an audit without an agreement.
    fn inconclusive(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        number: u64,
        reason: String,
    ) {
        let Some(audit) = self.open.get(&number) else {
            return;
        };
        if audit.purpose == Purpose::Drawn {
            let leaf = audit.leaf.digest();
            self.counts.inconclusive += 1;
            journal.write(context, LedgerEvent::Inconclusive { leaf, reason });
        }
        self.close(context, number);
    }

    /// Forgets the audits of steps from `step` on. Checkers that were tested there have not shown
    /// that they look: what is held back of theirs is re-run.
    pub(super) fn void(&mut self, context: &mut EventContext, step: u32) {
        let void = |(number, audit): (&u64, &LeafAudit)| (audit.at.step >= step).then_some(*number);
        let void: Vec<u64> = self.open.iter().filter_map(void).collect();
        let mut untested: BTreeSet<WorkerId> = BTreeSet::new();
        for number in void {
            let audit = self.open.get(&number);
            untested.extend(audit.into_iter().flat_map(LeafAudit::tests));
            self.close(context, number);
        }
        for checker in untested {
            self.tested.remove(&checker);
            self.ask_again(context.now, checker);
        }
        self.agreements
            .retain(|audited| audited.agreement.step < step);
    }

    pub(super) fn close(&mut self, context: &mut EventContext, number: u64) {
        let closed = self.open.remove(&number);
        if closed.is_some_and(|audit| audit.is_persisted()) {
            let job = self.job;
            context.out.persist(Change::AuditClosed { job, number });
        }
    }

    /// Panics where an audit is of a step that is void. `steps` are final; the next one may be
    /// disputed.
    pub(super) fn assert_invariants(&self, steps: u32, is_disputed: bool) {
        for audit in self.open.values() {
            let is_final = audit.at.step < steps;
            assert!(is_final || is_disputed, "an audit of a step that is void");
        }
    }
}

/// What was signed in a step that is final.
pub(super) fn halves(claims: &StepClaims) -> Arc<SignedStep> {
    Arc::new(claims.claims.iter().flat_map(WorkerClaim::halves).collect())
}

impl LeafAudit {
    fn new(
        now: Time,
        at: PlannedStep,
        (worker, leaf): (WorkerId, Leaf),
        purpose: Purpose,
        signed: Arc<SignedStep>,
    ) -> Self {
        Self {
            at,
            worker,
            leaf,
            purpose,
            standing: Standing::Queued(now),
            tried: BTreeSet::new(),
            contradictions: Vec::new(),
            failed_reruns: 0,
            is_beyond_referee: false,
            bait: None,
            signed,
        }
    }

    fn auditor(&self) -> Option<WorkerId> {
        match &self.standing {
            Standing::Queued(_) | Standing::Refereed { .. } => None,
            Standing::Ordered { auditor, .. } | Standing::Held { auditor, .. } => Some(*auditor),
        }
    }

    /// Whether two statements about it exclude each other.
    fn is_contested(&self) -> bool {
        !self.contradictions.is_empty() || self.purpose == Purpose::Dispute
    }

    fn is_canary_of(&self, id: &WorkerId) -> bool {
        matches!(&self.purpose, Purpose::Canary { checker, .. } if checker == id)
    }

    /// Checkers of which it shows whether they look.
    fn tests(&self) -> BTreeSet<WorkerId> {
        let mut tested: BTreeSet<WorkerId> = BTreeSet::new();
        tested.extend(self.contradictions.iter().map(Contradiction::auditor));
        if let Purpose::Canary { checker, .. } = &self.purpose {
            tested.insert(*checker);
        }
        tested
    }

    /// Hands it on: `auditor` is not asked again.
    fn pass_on(&mut self, now: Time, auditor: WorkerId) {
        self.tried.insert(auditor);
        self.standing = Standing::Queued(now);
    }

    /// Whether it outlives a restart. A canary does not, nor a step that is disputed before it is
    /// final.
    fn is_persisted(&self) -> bool {
        matches!(self.purpose, Purpose::Drawn | Purpose::Doubt)
    }

    fn persisted(&self, number: u64) -> PersistedAudit {
        let contradictions = self.contradictions.iter().map(Contradiction::persisted);
        PersistedAudit {
            number,
            step: self.at.step,
            epoch: self.at.epoch,
            worker: self.worker,
            leaf: self.leaf.clone(),
            is_drawn: self.purpose == Purpose::Drawn,
            contradictions: contradictions.collect(),
        }
    }
}
