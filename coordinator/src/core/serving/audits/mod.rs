//! Answers that are computed again: whom to ask, and what judges say.

mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::serving::{AnswerVerdict, AuditedAnswer};
use concord_proto::session::{Role, ToWorker};
use concord_proto::{Digest, WorkerId};

use super::pipelines::Pipelines;
use super::workers::StageWorkers;
use super::{EventContext, Time};

pub(super) use verdicts::AnswerDecision;

/// Audits that may be open. If checkers cannot keep up, the oldest one that nobody audits or has
/// judged is dropped.
const OPEN_MAX: usize = 1_024;

/// The audits of a deployment.
#[derive(Default)]
pub(super) struct AnswerAudits {
    open: BTreeMap<u64, AnswerAudit>,
    next: u64,
    agreed: u64,
    differed: u64,
}

/// An answer that is computed again.
struct AnswerAudit {
    receipt: Digest,
    /// Name of the receipt.
    name: String,
    signers: Vec<WorkerId>,
    /// Since when it waits for a judge.
    since: Time,
    /// The order that is out.
    ordered: Option<AnswerOrder>,
    /// Who was asked before.
    tried: BTreeSet<WorkerId>,
    /// What judges have said.
    said: Vec<Judgement>,
}

/// An order to compute an answer again.
#[derive(Clone, Copy, Debug)]
struct AnswerOrder {
    number: u64,
    judge: WorkerId,
    since: Time,
}

/// What a judge has said of an answer.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) judge: WorkerId,
    pub(super) verdict: AnswerVerdict,
}

enum Candidate {
    Found(WorkerId),
    AllBusy,
    Nobody,
}

/// What is to become of an answer that waits for a judge.
pub(super) enum NextJudge {
    Ask(WorkerId),
    Wait,
    GiveUp,
}

impl AnswerAudits {
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
        let is_out = |audit: &&AnswerAudit| audit.ordered.is_some_and(|o| o.judge == *judge);
        self.open.values().filter(is_out).count()
    }

    /// An answer is drawn for an audit.
    pub(super) fn draw(
        &mut self,
        now: Time,
        receipt: Digest,
        name: String,
        signers: Vec<WorkerId>,
    ) {
        let number = self.next();
        let audit = AnswerAudit {
            receipt,
            name,
            signers,
            since: now,
            ordered: None,
            tried: BTreeSet::new(),
            said: Vec::new(),
        };
        self.open.insert(number, audit);
        if self.open.len() > OPEN_MAX {
            let mut open = self.open.iter();
            let idle = open.find(|(_, audit)| audit.said.is_empty() && audit.ordered.is_none());
            if let Some(number) = idle.map(|(number, _)| *number) {
                self.open.remove(&number);
                tracing::warn!("more answers are drawn than checkers can follow: one is let go");
            }
        }
    }

    /// Takes back what was not answered, and gives what waits for a judge.
    pub(super) fn take_back(&mut self, context: &EventContext) -> Vec<u64> {
        let late = context.config.audit_timeout_us;
        for audit in self.open.values_mut() {
            if let Some(AnswerOrder { judge, since, .. }) = audit.ordered
                && (context.members.session(&judge).is_none() || context.now.since(since) > late)
            {
                audit.pass_on(context.now, judge);
            }
        }
        let waiting = self.open.iter();
        let waiting = waiting.filter(|(_, audit)| audit.ordered.is_none());
        waiting.map(|(number, _)| *number).collect()
    }

    /// Whom to ask about an answer; none where it is closed.
    pub(super) fn next_judge(
        &self,
        context: &EventContext,
        workers: &StageWorkers,
        pipelines: &Pipelines,
        number: u64,
    ) -> Option<NextJudge> {
        let audit = self.open.get(&number)?;
        let waited = context.now.since(audit.since);
        Some(match self.candidate(context, workers, pipelines, audit) {
            Candidate::Found(judge) => NextJudge::Ask(judge),
            Candidate::AllBusy => NextJudge::Wait,
            Candidate::Nobody if waited < context.config.checker_grace_us => NextJudge::Wait,
            Candidate::Nobody => NextJudge::GiveUp,
        })
    }

    /// Checkers first, then workers that have nothing else to do, then those of other pipelines.
    fn candidate(
        &self,
        context: &EventContext,
        workers: &StageWorkers,
        pipelines: &Pipelines,
        audit: &AnswerAudit,
    ) -> Candidate {
        let may_judge = |id: &WorkerId| {
            let is_party = audit.signers.contains(id) || audit.tried.contains(id);
            !is_party && workers.may_take_part(id)
        };
        let most = context.config.audits_in_flight;
        let members = context.members.connected();
        let members = members.filter(|member| !member.draining && may_judge(&member.id));
        let best = members.min_by_key(|member| {
            let is_checker = member.role == Role::Checker;
            let in_flight = self.in_flight(&member.id);
            let is_busy = pipelines.held_by(&member.id).is_some();
            (
                in_flight >= most,
                !is_checker,
                is_busy,
                in_flight,
                member.id,
            )
        });
        match best.map(|member| member.id) {
            None => Candidate::Nobody,
            Some(id) if self.in_flight(&id) >= most => Candidate::AllBusy,
            Some(id) => Candidate::Found(id),
        }
    }

    pub(super) fn order(&mut self, context: &mut EventContext, number: u64, judge: WorkerId) {
        let order = self.next();
        if let Some(audit) = self.open.get_mut(&number) {
            audit.ordered = Some(AnswerOrder {
                number: order,
                judge,
                since: context.now,
            });
            let receipt = audit.receipt;
            let order = AuditedAnswer { order, receipt };
            context.send(&judge, ToWorker::AuditAnswer(order));
        }
    }

    /// The audit of an order that this judge has yet to answer.
    fn ordered(&self, number: u64, judge: WorkerId) -> Option<u64> {
        let is_asked = |audit: &AnswerAudit| {
            let ordered = audit.ordered;
            ordered.is_some_and(|order| order.number == number && order.judge == judge)
        };
        let mut open = self.open.iter();
        open.find(|(_, audit)| is_asked(audit)).map(|(n, _)| *n)
    }

    /// Drops what a convicted judge has said.
    pub(super) fn distrust(&mut self, now: Time, judge: WorkerId) {
        for audit in self.open.values_mut() {
            audit.said.retain(|said| said.judge != judge);
            if audit.ordered.is_some_and(|order| order.judge == judge) {
                audit.pass_on(now, judge);
            }
        }
    }
}

impl AnswerAudit {
    /// Hands it on: `judge` is not asked again.
    fn pass_on(&mut self, now: Time, judge: WorkerId) {
        self.tried.insert(judge);
        (self.ordered, self.since) = (None, now);
    }
}
