//! Leaves that are re-run: drawn, handed to checkers, and handed on where no answer comes.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::draw::{AuditRate, drawn};
use concord_proto::ledger::LedgerEvent;
use concord_proto::{Digest, Leaf, Port, Signed, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::desk::Desk;
use super::event::Time;
use super::job::Job;
use super::kept::{Change, KeptAudit, KeptJudgement, Progress};

/// Why a leaf is re-run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The draw chose it.
    Drawn,
    /// It was altered, to see whether the checker looks. `truth` is what the worker claims.
    Canary {
        checker: WorkerId,
        original: Box<Leaf>,
    },
    /// A step cannot be final before.
    Contest,
    /// A checker found something wrong with it beside what it was asked.
    Doubt,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Waits for somebody to re-run it, since then.
    Queued(Time),
    /// Somebody re-runs it.
    Ordered {
        order: u64,
        judge: WorkerId,
        since: Time,
    },
    /// It is said to be right, by a checker that has a canary to answer yet.
    Held { judge: WorkerId, verdict: Signed },
}

/// A verdict that a leaf is wrong, until another party has re-run it.
#[derive(Clone, Debug)]
pub(super) struct Accusation {
    pub(super) judge: WorkerId,
    pub(super) computed: Vec<Port>,
    pub(super) verdict: Signed,
}

/// A leaf to be re-run.
#[derive(Clone, Debug)]
pub(super) struct Audit {
    pub(super) step: u32,
    pub(super) epoch: u32,
    pub(super) worker: WorkerId,
    /// As it is ordered.
    pub(super) leaf: Leaf,
    pub(super) purpose: Purpose,
    pub(super) standing: Standing,
    /// Who is not asked, or not again.
    pub(super) tried: BTreeSet<WorkerId>,
    pub(super) accusations: Vec<Accusation>,
    /// A leaf of the same step that can be altered to test the checker.
    pub(super) bait: Option<(WorkerId, Leaf)>,
}

/// All audits of a job.
#[derive(Debug, Default)]
pub(super) struct Audits {
    pub(super) next: u64,
    pub(super) open: BTreeMap<u64, Audit>,
    /// Checkers that had a canary in this job.
    pub(super) tested: BTreeSet<WorkerId>,
    /// Leaves found right, with those of late that could be re-run again.
    pub(super) judged: Vec<(KeptJudgement, Option<Audit>)>,
    pub(super) agreed: u64,
    pub(super) inconclusive: u64,
}

impl Audits {
    pub(super) fn restore(
        progress: &Progress,
        kept: Vec<KeptAudit>,
        judged: Vec<KeptJudgement>,
    ) -> Self {
        let mut audits = Self {
            agreed: progress.agreed,
            inconclusive: progress.inconclusive,
            judged: judged.into_iter().map(|judged| (judged, None)).collect(),
            ..Self::default()
        };
        for audit in kept {
            audits.next = audits.next.max(audit.number);
            let at = (audit.step, audit.epoch);
            let new = Audit::new(
                Time::default(),
                at,
                audit.worker,
                audit.leaf,
                Purpose::Drawn,
            );
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

    /// The first step with an open audit.
    pub(super) fn oldest_step(&self) -> Option<u32> {
        self.open.values().map(|audit| audit.step).min()
    }

    pub(super) fn open(
        &mut self,
        now: Time,
        at: (u32, u32),
        worker: WorkerId,
        leaf: Leaf,
        purpose: Purpose,
    ) -> u64 {
        let number = self.next_number();
        let audit = Audit::new(now, at, worker, leaf, purpose);
        self.open.insert(number, audit);
        number
    }

    /// Whether a checker has a canary to answer.
    pub(super) fn is_tested(&self, checker: &WorkerId) -> bool {
        let tests = |audit: &Audit| matches!(&audit.purpose, Purpose::Canary { checker: c, .. } if c == checker);
        self.open.values().any(tests)
    }

    pub(super) fn in_flight(&self, judge: &WorkerId) -> usize {
        let busy = |audit: &&Audit| matches!(&audit.standing, Standing::Ordered { judge: j, .. } if j == judge);
        self.open.values().filter(busy).count()
    }
}

impl Audit {
    fn new(now: Time, at: (u32, u32), worker: WorkerId, leaf: Leaf, purpose: Purpose) -> Self {
        let (step, epoch) = at;
        Self {
            step,
            epoch,
            worker,
            leaf,
            purpose,
            standing: Standing::Queued(now),
            tried: BTreeSet::new(),
            accusations: Vec::new(),
            bait: None,
        }
    }

    pub(super) fn judge(&self) -> Option<WorkerId> {
        match &self.standing {
            Standing::Queued(_) => None,
            Standing::Ordered { judge, .. } | Standing::Held { judge, .. } => Some(*judge),
        }
    }

    /// Hands it on: `judge` is not asked again.
    pub(super) fn pass_on(&mut self, now: Time, judge: WorkerId) {
        self.tried.insert(judge);
        self.standing = Standing::Queued(now);
    }
}

impl Job {
    /// Draws the leaves of a step that was just made final.
    pub(super) fn draw_audits(
        &mut self,
        desk: &mut Desk,
        seed: &Digest,
        rates: &[AuditRate],
        kept: &StepClaims,
    ) {
        let at = (kept.step, self.epoch);
        let all: Vec<(WorkerId, &Leaf)> = kept
            .claims
            .iter()
            .flat_map(|(claim, leaves)| leaves.iter().map(|leaf| (claim.signer, leaf)))
            .filter(|(_, leaf)| !leaf.outputs.is_empty())
            .collect();
        for ((_, leaves), rate) in kept.claims.iter().zip(rates) {
            for index in drawn(seed, rate, leaves.len() as u32) {
                let leaf = leaves[index as usize].clone();
                let number = self
                    .audits
                    .open(desk.now, at, rate.worker, leaf, Purpose::Drawn);
                let lot = desk.lot(&self.id, "bait", [number, 0]);
                let bait = all.get(lot as usize % all.len().max(1));
                if let Some(mut audit) = self.audits.open.remove(&number) {
                    self.keep_audit(desk, number, &audit);
                    audit.bait = bait.map(|(worker, leaf)| (*worker, (*leaf).clone()));
                    self.audits.open.insert(number, audit);
                }
            }
        }
    }

    /// Closes an audit without a judgement.
    pub(super) fn inconclusive(&mut self, desk: &mut Desk, number: u64, reason: String) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        if audit.purpose == Purpose::Drawn {
            let leaf = audit.leaf.digest();
            self.audits.inconclusive += 1;
            self.write(desk, LedgerEvent::Inconclusive { leaf, reason });
        }
        self.close_audit(desk, number);
    }

    /// Forgets the audits of steps from `step` on.
    pub(super) fn void_audits(&mut self, desk: &mut Desk, step: u32) {
        let void = |(number, audit): (&u64, &Audit)| (audit.step >= step).then_some(*number);
        let void: Vec<u64> = self.audits.open.iter().filter_map(void).collect();
        void.into_iter()
            .for_each(|number| self.close_audit(desk, number));
        self.audits.judged.retain(|(judged, _)| judged.step < step);
    }

    pub(super) fn close_audit(&mut self, desk: &mut Desk, number: u64) {
        let closed = self.audits.open.remove(&number);
        if closed.is_some_and(|audit| audit.purpose == Purpose::Drawn) {
            let job = self.id;
            desk.out.keep(Change::AuditClosed { job, number });
        }
    }

    /// Notes who found a leaf right; keeps the leaf while its worker may still open it.
    pub(super) fn note_judged(&mut self, desk: &Desk, checker: WorkerId, audit: Audit) {
        let judgement = KeptJudgement {
            checker,
            step: audit.step,
            leaf: audit.leaf.digest(),
        };
        self.audits.judged.push((judgement, Some(audit)));
        let oldest = self.committed.saturating_sub(desk.config.audit_window);
        for (judged, audit) in &mut self.audits.judged {
            if judged.step < oldest {
                *audit = None;
            }
        }
    }

    pub(super) fn keep_audit(&self, desk: &mut Desk, number: u64, audit: &Audit) {
        let job = self.id;
        let audit = KeptAudit {
            number,
            step: audit.step,
            epoch: audit.epoch,
            worker: audit.worker,
            leaf: audit.leaf.clone(),
        };
        desk.out.keep(Change::AuditOpened { job, audit });
    }

    /// The first step of which a leaf of `worker` was drawn and not judged.
    pub(super) fn first_unjudged(&self, worker: &WorkerId) -> Option<u32> {
        let is_open = |audit: &&Audit| {
            let counts = matches!(audit.purpose, Purpose::Drawn | Purpose::Doubt);
            audit.worker == *worker && counts
        };
        let open = self.audits.open.values().filter(is_open);
        open.map(|audit| audit.step).min()
    }
}
