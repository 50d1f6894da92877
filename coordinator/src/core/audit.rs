//! Leaves that are re-run: drawn, handed to checkers, and handed on where no answer comes.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::bundle::StepClaims;
use concord_proto::draw::{AuditRate, drawn};
use concord_proto::ledger::{LedgerEvent, Offence};
use concord_proto::session::{AuditOrder, Role, ToWorker};
use concord_proto::{Digest, Leaf, Port, Signed, WorkerId};

use super::desk::Desk;
use super::event::{Change, KeptAudit, KeptJudgement, Progress, Time};
use super::job::Job;

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
    bait: Option<(WorkerId, Leaf)>,
}

/// All audits of a job.
#[derive(Debug, Default)]
pub(super) struct Audits {
    next: u64,
    pub(super) open: BTreeMap<u64, Audit>,
    /// Checkers that had a canary in this job.
    tested: BTreeSet<WorkerId>,
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

    fn in_flight(&self, judge: &WorkerId) -> usize {
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

/// Who might re-run a leaf.
enum Candidate {
    Found(WorkerId),
    AllBusy,
    Nobody,
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
                let lot = lot(&desk.secret(&self.id, "bait", [number, 0]));
                let bait = all.get(lot as usize % all.len().max(1));
                if let Some(mut audit) = self.audits.open.remove(&number) {
                    self.keep_audit(desk, number, &audit);
                    audit.bait = bait.map(|(worker, leaf)| (*worker, (*leaf).clone()));
                    self.audits.open.insert(number, audit);
                }
            }
        }
    }

    /// Hands out what waits, takes back what was not answered, gives up what cannot be judged.
    pub(super) fn run_audits(&mut self, desk: &mut Desk) {
        let late = desk.config.audit_timeout_us;
        for audit in self.audits.open.values_mut() {
            if let Standing::Ordered { judge, since, .. } = audit.standing {
                let is_gone = desk.pool.session(&judge).is_none();
                if is_gone || desk.now.since(since) > late {
                    audit.pass_on(desk.now, judge);
                }
            }
        }
        let queued = |(number, audit): (&u64, &Audit)| match audit.standing {
            Standing::Queued(since) => Some((*number, since)),
            _ => None,
        };
        let queued: Vec<(u64, Time)> = self.audits.open.iter().filter_map(queued).collect();
        for (number, since) in queued {
            // What was done for one may have closed others.
            let Some(audit) = self.audits.open.get(&number) else {
                continue;
            };
            match self.candidate(desk, audit) {
                Candidate::Found(judge) => self.order(desk, number, judge),
                Candidate::AllBusy => {}
                Candidate::Nobody => self.give_up(desk, number, since),
            }
        }
    }

    fn candidate(&self, desk: &Desk, audit: &Audit) -> Candidate {
        if desk.pool.session(&audit.worker).is_none() {
            return Candidate::Nobody;
        }
        if let Purpose::Canary { checker, .. } = &audit.purpose {
            let is_here = desk.pool.session(checker).is_some() && !audit.tried.contains(checker);
            return if is_here {
                Candidate::Found(*checker)
            } else {
                Candidate::Nobody
            };
        }
        let may_judge = |id: &WorkerId| *id != audit.worker && !audit.tried.contains(id);
        let of_role = |role| {
            let members = desk
                .pool
                .connected()
                .filter(move |member| member.role == role);
            let free = members.map(|member| member.id).filter(|id| may_judge(id));
            free.min_by_key(|id| (self.audits.in_flight(id), *id))
        };
        // Workers help out only where a step or a dispute waits: checkers have nothing to gain.
        let is_urgent = !audit.accusations.is_empty() || audit.purpose == Purpose::Contest;
        let worker = || is_urgent.then(|| of_role(Role::Worker)).flatten();
        match of_role(Role::Checker).or_else(worker) {
            None => Candidate::Nobody,
            Some(id) if self.audits.in_flight(&id) >= desk.config.audits_in_flight => {
                Candidate::AllBusy
            }
            Some(id) => Candidate::Found(id),
        }
    }

    fn order(&mut self, desk: &mut Desk, number: u64, judge: WorkerId) {
        self.enrol(desk, &judge, true);
        let order = self.audits.next_number();
        let Some(audit) = self.audits.open.get_mut(&number) else {
            return;
        };
        audit.standing = Standing::Ordered {
            order,
            judge,
            since: desk.now,
        };
        let endpoint = desk
            .pool
            .get(&audit.worker)
            .map(|member| member.endpoint.clone());
        let message = AuditOrder {
            order,
            spec: self.spec_blob,
            job: self.id,
            epoch: audit.epoch,
            step: audit.step,
            worker: audit.worker,
            endpoint: endpoint.unwrap_or_default(),
            leaf: audit.leaf.clone(),
        };
        let at = (audit.step, audit.epoch);
        let bait = audit.bait.take();
        desk.send(&judge, ToWorker::Audit(Box::new(message)));
        let is_checker = desk
            .pool
            .get(&judge)
            .is_some_and(|m| m.role == Role::Checker);
        if let (Some(bait), true) = (bait, is_checker) {
            self.test_checker(desk, at, judge, bait);
        }
    }

    /// Now and then, and the first time in any case, a checker gets a leaf that is altered.
    fn test_checker(
        &mut self,
        desk: &mut Desk,
        at: (u32, u32),
        checker: WorkerId,
        (worker, original): (WorkerId, Leaf),
    ) {
        let rate = self.submission.options.canary_rate;
        let secret = desk.secret(&self.id, "canary", [self.audits.next, at.0.into()]);
        let is_first = !self.audits.tested.contains(&checker);
        if rate == 0 || (!is_first && u64::from(lot(&secret)) >= rate) {
            return;
        }
        let mut leaf = original.clone();
        let output = usize::from(secret[4]) % leaf.outputs.len().max(1);
        let Some(port) = leaf.outputs.get_mut(output) else {
            return;
        };
        port.digest = Digest(desk.secret(&self.id, "altered", [self.audits.next, 0]));
        self.audits.tested.insert(checker);
        let original = Box::new(original);
        let purpose = Purpose::Canary { checker, original };
        let number = self.audits.open(desk.now, at, worker, leaf, purpose);
        self.order(desk, number, checker);
    }

    /// Nobody is there who could re-run the leaf.
    fn give_up(&mut self, desk: &mut Desk, number: u64, since: Time) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        let waited = desk.now.since(since);
        let member = desk.pool.get(&audit.worker);
        let is_gone = member.is_none_or(|member| member.session.is_none());
        let may_return = member.is_some_and(|member| {
            is_gone && desk.now.since(member.left) < desk.config.return_grace_us
        });
        if may_return {
            return;
        }
        if let Purpose::Canary { checker, .. } = audit.purpose {
            self.close_audit(desk, number);
            return self.release_held(desk, checker);
        }
        if !audit.accusations.is_empty() || audit.purpose == Purpose::Contest {
            if is_gone || waited >= desk.config.third_party_grace_us {
                self.undecided(desk, number);
            }
            return;
        }
        let are_awaited = self.submission.options.min_checkers > 0 && audit.tried.is_empty();
        if is_gone || !are_awaited || waited >= desk.config.checker_grace_us {
            let reason = if is_gone {
                "its worker left before it was re-run"
            } else {
                "no checker could re-run it"
            };
            self.inconclusive(desk, number, reason.to_string());
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

    /// A dispute or a contest that nobody can decide.
    fn undecided(&mut self, desk: &mut Desk, number: u64) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        if audit.accusations.is_empty() {
            return self.contest_unjudged(desk);
        }
        let (worker, step) = (audit.worker, audit.step);
        let is_contest = audit.purpose == Purpose::Contest;
        let reason = format!(
            "a checker found a leaf of worker {} wrong, and no third party is there to decide: \
             add a checker",
            worker.short()
        );
        self.inconclusive(desk, number, reason.clone());
        if !is_contest {
            self.retire(desk);
            self.void_from(desk, step);
        }
        self.set_aside(desk, worker, &reason);
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

    /// What a convicted checker found right counts no more: leaves of late are judged again, older
    /// ones are inconclusive.
    fn judge_again(&mut self, desk: &mut Desk, checker: WorkerId) {
        let is_doubtful = |(judged, _): &(KeptJudgement, _)| judged.checker == checker;
        let all = std::mem::take(&mut self.audits.judged);
        let (doubtful, sound) = all.into_iter().partition(is_doubtful);
        self.audits.judged = sound;
        for (judged, audit) in doubtful {
            self.audits.agreed -= 1;
            let Some(mut audit) = audit else {
                self.audits.inconclusive += 1;
                let (leaf, reason) = (judged.leaf, "its checker was convicted".to_string());
                self.write(desk, LedgerEvent::Inconclusive { leaf, reason });
                continue;
            };
            audit.pass_on(desk.now, checker);
            audit.accusations.clear();
            let number = self.audits.next_number();
            self.keep_audit(desk, number, &audit);
            self.audits.open.insert(number, audit);
        }
    }

    fn keep_audit(&self, desk: &mut Desk, number: u64, audit: &Audit) {
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

    /// A checker is convicted: what it said or was to say is asked of others.
    pub(super) fn distrust_judge(&mut self, desk: &mut Desk, judge: WorkerId) {
        self.judge_again(desk, judge);
        let canary = |(number, audit): (&u64, &Audit)| match &audit.purpose {
            Purpose::Canary { checker, .. } if *checker == judge => Some(*number),
            _ => None,
        };
        let canaries: Vec<u64> = self.audits.open.iter().filter_map(canary).collect();
        canaries
            .into_iter()
            .for_each(|number| self.close_audit(desk, number));
        for audit in self.audits.open.values_mut() {
            audit
                .accusations
                .retain(|accusation| accusation.judge != judge);
            if audit.judge() == Some(judge) {
                audit.pass_on(desk.now, judge);
            }
        }
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

    /// Convicts with the evidence of a rule that does not hold.
    pub(super) fn convict_breach(&mut self, desk: &mut Desk, breach: concord_proto::rules::Breach) {
        let (culprit, offence): (WorkerId, Offence) = (breach.culprit, breach.offence);
        self.convict(desk, culprit, offence, breach.evidence, None);
    }
}

fn lot(secret: &[u8; 32]) -> u32 {
    u32::from_le_bytes([secret[0], secret[1], secret[2], secret[3]])
}
