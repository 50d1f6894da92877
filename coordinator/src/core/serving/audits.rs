//! Answers that are computed again: whom to ask.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{Role, ToWorker};
use concord_proto::{Digest, WorkerId};

use super::super::desk::Desk;
use super::super::event::Time;
use super::Deployed;

/// Audits that may be open: where checkers cannot follow, the oldest of which nobody has said
/// anything are let go.
const OPEN_MAX: usize = 1_024;

/// The audits of a deployment.
#[derive(Default)]
pub(super) struct Audits {
    pub(super) open: BTreeMap<u64, Audit>,
    next: u64,
    pub(super) agreed: u64,
    pub(super) differed: u64,
}

/// An answer that is computed again.
pub(super) struct Audit {
    pub(super) receipt: Digest,
    /// Name of the receipt.
    pub(super) name: String,
    pub(super) signers: Vec<WorkerId>,
    /// Since when it waits for a judge.
    since: Time,
    /// The order that is out: its number, who has it, since when.
    pub(super) ordered: Option<(u64, WorkerId, Time)>,
    /// Who was asked before.
    tried: BTreeSet<WorkerId>,
    /// What judges have said.
    pub(super) said: Vec<(WorkerId, AnswerVerdict)>,
}

impl Audits {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Those that agreed, and those that did not.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.agreed, self.differed)
    }

    /// Orders out at a judge.
    pub(super) fn in_flight(&self, judge: &WorkerId) -> usize {
        let is_his = |audit: &&Audit| audit.ordered.is_some_and(|(_, id, _)| id == *judge);
        self.open.values().filter(is_his).count()
    }
}

impl Audit {
    /// Hands it on: `judge` is not asked again.
    pub(super) fn pass_on(&mut self, now: Time, judge: WorkerId) {
        self.tried.insert(judge);
        (self.ordered, self.since) = (None, now);
    }
}

enum Candidate {
    Found(WorkerId),
    AllBusy,
    Nobody,
}

impl Deployed {
    pub(super) fn draw(
        &mut self,
        desk: &Desk,
        receipt: Digest,
        name: String,
        signers: Vec<WorkerId>,
    ) {
        let number = self.audits.next();
        let audit = Audit {
            receipt,
            name,
            signers,
            since: desk.now,
            ordered: None,
            tried: BTreeSet::new(),
            said: Vec::new(),
        };
        self.audits.open.insert(number, audit);
        if self.audits.open.len() > OPEN_MAX {
            let mut open = self.audits.open.iter();
            let idle = open.find(|(_, audit)| audit.said.is_empty() && audit.ordered.is_none());
            if let Some(number) = idle.map(|(number, _)| *number) {
                self.audits.open.remove(&number);
                tracing::warn!("more answers are drawn than checkers can follow: one is let go");
            }
        }
    }

    /// Hands out what waits, takes back what was not answered, gives up what cannot be judged.
    pub(super) fn run_audits(&mut self, desk: &mut Desk) {
        let late = desk.config.audit_timeout_us;
        for audit in self.audits.open.values_mut() {
            if let Some((_, judge, since)) = audit.ordered
                && (desk.pool.session(&judge).is_none() || desk.now.since(since) > late)
            {
                audit.pass_on(desk.now, judge);
            }
        }
        let waiting = self.audits.open.iter();
        let waiting = waiting.filter(|(_, audit)| audit.ordered.is_none());
        let waiting: Vec<u64> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            let Some(audit) = self.audits.open.get(&number) else {
                continue;
            };
            let waited = desk.now.since(audit.since);
            match self.candidate(desk, audit) {
                Candidate::Found(judge) => self.order(desk, number, judge),
                Candidate::AllBusy => {}
                Candidate::Nobody if waited < desk.config.checker_grace_us => {}
                Candidate::Nobody => self.give_up(desk, number),
            }
        }
    }

    /// Checkers first, then workers that have nothing else to do, then those of other pipelines.
    fn candidate(&self, desk: &Desk, audit: &Audit) -> Candidate {
        let may_judge = |id: &WorkerId| {
            let is_party = audit.signers.contains(id) || audit.tried.contains(id);
            !is_party && !self.out.contains_key(id) && !self.gave_up.contains_key(id)
        };
        let members = desk.pool.connected();
        let members = members.filter(|member| !member.draining && may_judge(&member.id));
        let best = members.min_by_key(|member| {
            let is_checker = member.role == Role::Checker;
            let in_flight = self.audits.in_flight(&member.id);
            let is_full = in_flight >= desk.config.audits_in_flight;
            (
                is_full,
                !is_checker,
                self.needs(&member.id),
                in_flight,
                member.id,
            )
        });
        match best.map(|member| member.id) {
            None => Candidate::Nobody,
            Some(id) if self.audits.in_flight(&id) >= desk.config.audits_in_flight => {
                Candidate::AllBusy
            }
            Some(id) => Candidate::Found(id),
        }
    }

    fn order(&mut self, desk: &mut Desk, number: u64, judge: WorkerId) {
        let order = self.audits.next();
        if let Some(audit) = self.audits.open.get_mut(&number) {
            audit.ordered = Some((order, judge, desk.now));
            let receipt = audit.receipt;
            desk.send(
                &judge,
                ToWorker::AuditAnswer(AuditedAnswer { order, receipt }),
            );
        }
    }
}
