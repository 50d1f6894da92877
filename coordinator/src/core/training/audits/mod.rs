//! Leaves that are re-run: drawn, handed to checkers, and handed on where no answer comes.

mod orders;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::draw::{AuditRate, drawn};
use concord_proto::ledger::LedgerEvent;
use concord_proto::{Digest, JobId, Leaf, LeafKey, Port, Signed, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::conviction::Conviction;
use super::journal::Journal;
use super::{
    Change, EventContext, JobOrder, JobProgress, PersistedAgreement, PersistedAudit, Time,
};

/// Why a leaf is re-run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// The draw chose it.
    Drawn,
    /// It was altered, to see whether the checker looks. `original` is what the worker claims.
    Canary {
        checker: WorkerId,
        original: Box<Leaf>,
    },
    /// Its step cannot be final before it is re-run.
    Dispute,
    /// A checker that was asked about an altered copy found something else wrong.
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
}

/// A verdict that a leaf is wrong, until another party has re-run it.
#[derive(Clone, Debug)]
struct Accusation {
    auditor: WorkerId,
    computed: Vec<Port>,
    verdict: Signed,
}

/// A step, as it was done under a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedStep {
    pub(super) step: u32,
    pub(super) epoch: u32,
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
    accusations: Vec<Accusation>,
    bait: Option<Bait>,
}

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
    /// Checkers that had a canary in this job.
    tested: BTreeSet<WorkerId>,
    agreements: Vec<AuditedLeaf>,
    counts: AuditCounts,
    /// Orders that each auditor had yet to answer when unanswered ones were taken back last, and
    /// those given since.
    asked: BTreeMap<WorkerId, usize>,
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
    Convict(Conviction),
    /// A leaf of the disputed step is right.
    DisputeAgrees {
        number: u64,
    },
    /// A leaf of the disputed step cannot be audited.
    DisputeUndecided {
        /// The worker whose inputs nobody got; none where nobody is there to ask for them.
        withheld_by: Option<WorkerId>,
    },
    /// A leaf was called wrong, and nobody can decide: its worker is set aside.
    Undecided {
        worker: WorkerId,
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
    ) -> Self {
        let agreements = agreements.into_iter().map(|agreement| AuditedLeaf {
            agreement,
            audit: None,
        });
        let mut audits = Self {
            job,
            next: 0,
            open: BTreeMap::new(),
            tested: BTreeSet::new(),
            agreements: agreements.collect(),
            counts: AuditCounts {
                agreed: progress.agreed,
                inconclusive: progress.inconclusive,
            },
            asked: BTreeMap::new(),
        };
        for audit in persisted {
            audits.next = audits.next.max(audit.number);
            let at = PlannedStep {
                step: audit.step,
                epoch: audit.epoch,
            };
            let now = Time::default();
            let new = LeafAudit::new(now, at, audit.worker, audit.leaf, Purpose::Drawn);
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
            let counts = matches!(audit.purpose, Purpose::Drawn | Purpose::Doubt);
            audit.worker == *worker && counts
        };
        let open = self.open.values().filter(is_open);
        open.map(|audit| audit.at.step).min()
    }

    fn add(
        &mut self,
        now: Time,
        at: PlannedStep,
        worker: WorkerId,
        leaf: Leaf,
        purpose: Purpose,
    ) -> u64 {
        let number = self.next_number();
        let audit = LeafAudit::new(now, at, worker, leaf, purpose);
        self.open.insert(number, audit);
        number
    }

    /// Has leaves of a step re-run before it can be final. Gives their numbers.
    pub(super) fn dispute(
        &mut self,
        now: Time,
        at: PlannedStep,
        leaves: Vec<(WorkerId, Leaf)>,
    ) -> BTreeSet<u64> {
        let leaves = leaves.into_iter();
        let numbers =
            leaves.map(|(worker, leaf)| self.add(now, at, worker, leaf, Purpose::Dispute));
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
        for (claim, rate) in claims.claims.iter().zip(rates) {
            for index in drawn(seed, rate, claim.leaves.len() as u32, decides) {
                let leaf = claim.leaves[index as usize].clone();
                ask(rate.worker, &leaf);
                let number = self.add(context.now, at, rate.worker, leaf, Purpose::Drawn);
                let lot = context.lot(&self.job, "bait", [number, 0]);
                let bait = all.get(lot as usize % all.len().max(1));
                bait.into_iter()
                    .for_each(|(worker, leaf)| ask(*worker, leaf));
                if let Some(audit) = self.open.get_mut(&number) {
                    audit.bait = bait.map(|(worker, leaf)| Bait {
                        worker: *worker,
                        leaf: (*leaf).clone(),
                    });
                    let change = audit.persisted(self.job, number);
                    context.out.persist(change);
                }
            }
        }
        audited
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

    /// Forgets the audits of steps from `step` on.
    pub(super) fn void(&mut self, context: &mut EventContext, step: u32) {
        let void = |(number, audit): (&u64, &LeafAudit)| (audit.at.step >= step).then_some(*number);
        let void: Vec<u64> = self.open.iter().filter_map(void).collect();
        void.into_iter()
            .for_each(|number| self.close(context, number));
        self.agreements
            .retain(|audited| audited.agreement.step < step);
    }

    pub(super) fn close(&mut self, context: &mut EventContext, number: u64) {
        let closed = self.open.remove(&number);
        if closed.is_some_and(|audit| audit.purpose == Purpose::Drawn) {
            let job = self.job;
            context.out.persist(Change::AuditClosed { job, number });
        }
    }

    /// A checker is convicted: what it said or was to say is asked of others.
    pub(super) fn distrust(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        auditor: WorkerId,
    ) {
        self.audit_again(context, journal, auditor);
        let canary = |(number, audit): (&u64, &LeafAudit)| match &audit.purpose {
            Purpose::Canary { checker, .. } if *checker == auditor => Some(*number),
            Purpose::Canary { .. } | Purpose::Drawn | Purpose::Dispute | Purpose::Doubt => None,
        };
        let canaries: Vec<u64> = self.open.iter().filter_map(canary).collect();
        canaries
            .into_iter()
            .for_each(|number| self.close(context, number));
        for audit in self.open.values_mut() {
            audit
                .accusations
                .retain(|accusation| accusation.auditor != auditor);
        }
        self.ask_others(context.now, auditor);
    }

    /// Leaves that a convicted checker found right no longer count: recent ones are audited again,
    /// older ones become inconclusive.
    fn audit_again(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        checker: WorkerId,
    ) {
        let is_doubtful = |audited: &AuditedLeaf| audited.agreement.checker == checker;
        let all = std::mem::take(&mut self.agreements);
        let (doubtful, sound): (Vec<_>, Vec<_>) = all.into_iter().partition(is_doubtful);
        self.agreements = sound;
        for audited in doubtful {
            self.counts.agreed -= 1;
            let Some(mut audit) = audited.audit else {
                self.counts.inconclusive += 1;
                let leaf = audited.agreement.leaf;
                let reason = "its checker was convicted".to_string();
                journal.write(context, LedgerEvent::Inconclusive { leaf, reason });
                continue;
            };
            audit.pass_on(context.now, checker);
            audit.accusations.clear();
            let number = self.next_number();
            context.out.persist(audit.persisted(self.job, number));
            self.open.insert(number, audit);
        }
    }

    /// Hands the leaves that `auditor` re-runs, or whose verdict is held back, to others.
    fn ask_others(&mut self, now: Time, auditor: WorkerId) {
        for audit in self.open.values_mut() {
            if audit.auditor() == Some(auditor) {
                audit.pass_on(now, auditor);
            }
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

impl LeafAudit {
    fn new(now: Time, at: PlannedStep, worker: WorkerId, leaf: Leaf, purpose: Purpose) -> Self {
        Self {
            at,
            worker,
            leaf,
            purpose,
            standing: Standing::Queued(now),
            tried: BTreeSet::new(),
            accusations: Vec::new(),
            bait: None,
        }
    }

    fn auditor(&self) -> Option<WorkerId> {
        match &self.standing {
            Standing::Queued(_) => None,
            Standing::Ordered { auditor, .. } | Standing::Held { auditor, .. } => Some(*auditor),
        }
    }

    /// Hands it on: `auditor` is not asked again.
    fn pass_on(&mut self, now: Time, auditor: WorkerId) {
        self.tried.insert(auditor);
        self.standing = Standing::Queued(now);
    }

    fn persisted(&self, job: JobId, number: u64) -> Change {
        let audit = PersistedAudit {
            number,
            step: self.at.step,
            epoch: self.at.epoch,
            worker: self.worker,
            leaf: self.leaf.clone(),
        };
        Change::AuditOpened { job, audit }
    }
}
