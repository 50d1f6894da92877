//! Leaves that are re-run: drawn, handed to checkers, and handed on where no answer comes.

mod contradiction;
mod distrust;
mod opinions;
mod orders;
mod referee;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_proto::{JobId, Leaf, LeafKey, Signed, SignedHalf, WorkerId};
use concord_verify::training::WorkerClaim;
use concord_verify::training::bundle::StepClaims;

use super::charge::Charge;
use super::journal::Journal;
use super::planned_step::PlannedStep;
use super::{Change, CoreEffect, EventContext, JobOrder, JobProgress, PersistedAudit, Time};
use contradiction::Contradiction;
use orders::UNANSWERED_MAX;
pub(in crate::core) use referee::Refereed;

/// Why a leaf is re-run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// The secret of an auditor chose it, for itself.
    Own { auditor: WorkerId },
    /// Its step cannot be final before it is re-run.
    Dispute,
    /// An auditor has found another result than its worker claims.
    Doubt,
    /// A checker of the pool has found it right: whether its verdict shows the work behind it.
    Recheck { verdict: Signed },
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
    /// The coordinator's own referee re-runs it.
    Refereed { order: u64 },
}

/// A leaf that a worker has claimed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) at: PlannedStep,
    pub(super) attempt: u32,
    pub(super) worker: WorkerId,
    /// Its place among the leaves of the worker.
    pub(super) index: u32,
    pub(super) leaf: Leaf,
}

/// A leaf to be re-run.
#[derive(Clone, Debug)]
struct LeafAudit {
    of: Subject,
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
    /// What the workers of the step have signed.
    signed: Arc<SignedStep>,
}

/// The halves of claims that workers have signed for a step, each with its leaves.
pub(super) type SignedStep = Vec<SignedHalf>;

/// The leaves of each worker of a step that checkers may ask for.
pub(super) type AuditedLeaves = BTreeMap<WorkerId, BTreeSet<LeafKey>>;

/// All audits of a job.
#[derive(Debug)]
pub(super) struct LeafAudits {
    job: JobId,
    next: u64,
    open: BTreeMap<u64, LeafAudit>,
    /// Checkers of which a verdict was checked in this job.
    rechecked: BTreeSet<WorkerId>,
    /// Who is asked nothing more, because others contradicted it and nothing decides who is right.
    left_out: BTreeSet<WorkerId>,
    counts: AuditCounts,
    /// Orders that each auditor had yet to answer when unanswered ones were taken back last, and
    /// those given since.
    asked: BTreeMap<WorkerId, usize>,
    /// How many of the leaves that it has drawn itself each auditor has left unanswered, in a row.
    unanswered: BTreeMap<WorkerId, u32>,
}

/// What came of the leaves that auditors have drawn.
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
        claims: &[StepClaims],
    ) -> Self {
        let signed = claims.iter().map(|step| (step.step, halves(step)));
        let signed: BTreeMap<u32, Arc<SignedStep>> = signed.collect();
        let mut audits = Self {
            job,
            next: 0,
            open: BTreeMap::new(),
            rechecked: BTreeSet::new(),
            left_out: progress.set_aside.iter().copied().collect(),
            counts: AuditCounts {
                agreed: progress.agreed,
                inconclusive: progress.inconclusive,
            },
            asked: BTreeMap::new(),
            unanswered: BTreeMap::new(),
        };
        for audit in persisted {
            audits.next = audits.next.max(audit.number);
            let purpose = match audit.auditor {
                Some(auditor) => Purpose::Own { auditor },
                None => Purpose::Doubt,
            };
            // Without them, whoever lied about it can be left out, and not be convicted.
            let signed = signed.get(&audit.step).cloned().unwrap_or_default();
            let of = Subject {
                at: PlannedStep {
                    step: audit.step,
                    epoch: audit.epoch,
                },
                attempt: audit.attempt,
                worker: audit.worker,
                index: audit.index,
                leaf: audit.leaf,
            };
            let mut new = LeafAudit::new(Time::default(), of, purpose, signed);
            let contradictions = audit.contradictions.into_iter();
            new.contradictions = contradictions.filter_map(Contradiction::of).collect();
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
        self.open.values().map(|audit| audit.of.at.step).collect()
    }

    /// Whether a member is asked for anything.
    pub(super) fn asks(&self, member: &WorkerId) -> bool {
        let unanswered = self.unanswered.get(member);
        let is_silent = unanswered.is_some_and(|times| *times >= UNANSWERED_MAX);
        !is_silent && !self.left_out.contains(member)
    }

    /// Whether a leaf of a worker is being audited.
    pub(super) fn concern(&self, worker: &WorkerId) -> bool {
        self.open.values().any(|audit| audit.of.worker == *worker)
    }

    /// Leaves that a member re-runs.
    pub(super) fn asked_of(&self, member: &WorkerId) -> usize {
        let asked = |audit: &&LeafAudit| audit.auditor() == Some(*member);
        self.open.values().filter(asked).count()
    }

    /// The first step of which a leaf of `worker` was drawn and not audited.
    pub(super) fn first_unaudited(&self, worker: &WorkerId) -> Option<u32> {
        let is_open = |audit: &&LeafAudit| {
            let counts = matches!(audit.purpose, Purpose::Own { .. } | Purpose::Doubt);
            audit.of.worker == *worker && counts
        };
        let open = self.open.values().filter(is_open);
        open.map(|audit| audit.of.at.step).min()
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
        leaves: Vec<Subject>,
        signed: SignedStep,
    ) -> BTreeSet<u64> {
        let signed = Arc::new(signed);
        let numbers = leaves.into_iter().map(|of| {
            let (purpose, signed) = (Purpose::Dispute, signed.clone());
            self.add(LeafAudit::new(now, of, purpose, signed))
        });
        numbers.collect()
    }

    /// An auditor has drawn a leaf of a step that is final: it re-runs it itself.
    pub(super) fn add_own(
        &mut self,
        context: &mut EventContext,
        (auditor, signed): (WorkerId, Arc<SignedStep>),
        of: Subject,
    ) {
        let audit = LeafAudit::new(context.now, of, Purpose::Own { auditor }, signed);
        let number = self.add(audit);
        if let Some(audit) = self.open.get(&number) {
            let (job, audit) = (self.job, audit.persisted(number));
            context.out.persist(Change::AuditOpened { job, audit });
        }
    }

    /// The leaves of an attempt that are being re-run: what its workers are asked for.
    pub(super) fn leaves_of(&self, attempt: u32) -> AuditedLeaves {
        let mut leaves = AuditedLeaves::new();
        let of = self.open.values().map(|audit| &audit.of);
        for of in of.filter(|of| of.attempt == attempt) {
            leaves.entry(of.worker).or_default().insert(of.leaf.key());
        }
        leaves
    }

    /// Closes an audit without an agreement.
    fn inconclusive(&mut self, context: &mut EventContext, number: u64) {
        let audit = self.open.get(&number);
        let is_own = audit.is_some_and(|audit| matches!(audit.purpose, Purpose::Own { .. }));
        self.counts.inconclusive += u64::from(is_own);
        self.close(context, number);
    }

    /// Forgets the audits of steps from `step` on.
    pub(super) fn void(&mut self, context: &mut EventContext, step: u32) {
        let is_void = |audit: &LeafAudit| audit.of.at.step >= step;
        let void = self.open.iter().filter(|(_, audit)| is_void(audit));
        let void: Vec<u64> = void.map(|(number, _)| *number).collect();
        void.into_iter()
            .for_each(|number| self.close(context, number));
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
            let is_final = audit.of.at.step < steps;
            assert!(is_final || is_disputed, "an audit of a step that is void");
        }
    }
}

/// What was signed in a step that is final.
pub(super) fn halves(claims: &StepClaims) -> Arc<SignedStep> {
    Arc::new(claims.claims.iter().flat_map(WorkerClaim::halves).collect())
}

impl LeafAudit {
    fn new(now: Time, of: Subject, purpose: Purpose, signed: Arc<SignedStep>) -> Self {
        Self {
            of,
            purpose,
            standing: Standing::Queued(now),
            tried: BTreeSet::new(),
            contradictions: Vec::new(),
            failed_reruns: 0,
            is_beyond_referee: false,
            signed,
        }
    }

    fn auditor(&self) -> Option<WorkerId> {
        match &self.standing {
            Standing::Queued(_) | Standing::Refereed { .. } => None,
            Standing::Ordered { auditor, .. } => Some(*auditor),
        }
    }

    /// Whether two statements about it exclude each other.
    fn is_contested(&self) -> bool {
        !self.contradictions.is_empty() || self.purpose == Purpose::Dispute
    }

    fn is_recheck(&self) -> bool {
        matches!(self.purpose, Purpose::Recheck { .. })
    }

    /// Hands it on: `auditor` is not asked again.
    fn pass_on(&mut self, now: Time, auditor: WorkerId) {
        self.tried.insert(auditor);
        self.standing = Standing::Queued(now);
    }

    /// Whether it outlives a restart: not where a step is disputed before it is final.
    fn is_persisted(&self) -> bool {
        matches!(self.purpose, Purpose::Own { .. } | Purpose::Doubt)
    }

    fn persisted(&self, number: u64) -> PersistedAudit {
        let contradictions = self.contradictions.iter();
        let auditor = match &self.purpose {
            Purpose::Own { auditor } => Some(*auditor),
            Purpose::Dispute | Purpose::Doubt | Purpose::Recheck { .. } => None,
        };
        PersistedAudit {
            number,
            attempt: self.of.attempt,
            step: self.of.at.step,
            epoch: self.of.at.epoch,
            worker: self.of.worker,
            index: self.of.index,
            leaf: self.of.leaf.clone(),
            auditor,
            contradictions: contradictions.map(|one| one.verdict.clone()).collect(),
        }
    }
}
