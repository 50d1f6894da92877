//! What checkers and auditors say, and what follows from it.

use concord_proto::client::JobEvent;
use concord_proto::ledger::{Finding, LedgerEvent, Verdict};
use concord_proto::session::Role;
use concord_proto::{Port, Signed, WorkerId};
use concord_verify::training::{leaf_words, sorted_ports};

use super::{
    AuditDecision, Change, Contradiction, EventContext, JobOrder, Journal, LeafAudit, LeafAudits,
    Purpose, Standing,
};

impl LeafAudits {
    /// A checker, an auditor or a third party answers an order.
    pub(in super::super) fn answer(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        auditor: WorkerId,
        order: u64,
        signed: Signed,
    ) -> Vec<AuditDecision> {
        // The order was handed on since: the verdict is late.
        let Some(number) = self.ordered(order, auditor) else {
            return Vec::new();
        };
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        // A signature that does not hold, or bytes that are no verdict, show nothing about anybody.
        let Ok(verdict) = signed.open::<Verdict>() else {
            audit.pass_on(context.now, auditor);
            return Vec::new();
        };
        let of = &audit.of;
        let about = (verdict.job, verdict.step, verdict.epoch, verdict.worker);
        let ordered = (job.id, of.at.step, of.at.epoch, of.worker);
        let place = (verdict.attempt, verdict.index, verdict.leaf);
        let fits = about == ordered && place == (of.attempt, of.index, of.leaf.digest());
        if !fits || signed.signer != auditor {
            // It does not answer this order: somebody else is asked.
            audit.pass_on(context.now, auditor);
            return Vec::new();
        }
        self.unanswered.remove(&auditor);
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        match verdict.finding {
            Finding::Inconclusive { .. } => {
                audit.pass_on(context.now, auditor);
                Vec::new()
            }
            Finding::Agrees if !audit.contradictions.is_empty() => {
                self.outvote(context, journal, job, (number, auditor), signed)
            }
            Finding::Agrees => vec![AuditDecision::Accept {
                number,
                auditor,
                verdict: signed,
            }],
            Finding::Differs { computed } => {
                self.on_differs(context, journal, (number, auditor), (signed, computed))
            }
        }
    }

    /// The audit of an order that this auditor has yet to answer.
    fn ordered(&self, number: u64, by: WorkerId) -> Option<u64> {
        let answers = |audit: &LeafAudit| match audit.standing {
            Standing::Ordered { order, auditor, .. } => order == number && auditor == by,
            Standing::Queued(_) | Standing::Refereed { .. } => false,
        };
        let mut open = self.open.iter();
        open.find(|(_, audit)| answers(audit)).map(|(n, _)| *n)
    }

    /// Notes that a leaf is right.
    pub(in super::super) fn accept(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        number: u64,
        auditor: WorkerId,
        verdict: Signed,
    ) -> Option<AuditDecision> {
        let audit = self.open.get(&number)?.clone();
        self.close(context, number);
        match audit.purpose {
            Purpose::Dispute => return Some(AuditDecision::DisputeAgrees { number }),
            Purpose::Own { .. } => {}
            Purpose::Doubt | Purpose::Recheck { .. } => return None,
        }
        self.counts.agreed += 1;
        context.members.note_answered(&auditor, 1);
        let of = &audit.of;
        let audited = JobEvent::Audited {
            worker: of.worker,
            checker: auditor,
            step: job.spec().updates_before(of.at.step),
            evaluation: job.spec().is_evaluation(of.at.step),
            leaf: leaf_words(&of.leaf),
        };
        let written = verdict.clone();
        journal.write(context, LedgerEvent::Judged { verdict: written });
        journal.publish(context, audited);
        let member = context.members.get(&auditor);
        if member.is_some_and(|member| member.role == Role::Checker) {
            // The auditor that a client names may be the worker's own.
            context.note_passed(&of.worker);
            self.recheck(context, job, auditor, audit, verdict);
        }
        None
    }

    /// Now and then, and the first time in any case, has the referee see whether a checker of the
    /// pool has done the work behind its verdict. It cannot tell which verdicts: they are chosen
    /// once they are given.
    fn recheck(
        &mut self,
        context: &mut EventContext,
        job: &JobOrder,
        checker: WorkerId,
        audit: LeafAudit,
        verdict: Signed,
    ) {
        let rate = job.options().recheck_rate;
        let lot = context.lot(&self.job, "recheck", [self.next, audit.of.at.step.into()]);
        let is_first = rate > 0 && !self.rechecked.contains(&checker);
        if !context.config.referee || !(is_first || u64::from(lot) < rate) {
            return;
        }
        self.rechecked.insert(checker);
        let purpose = Purpose::Recheck { verdict };
        self.add(LeafAudit::new(context.now, audit.of, purpose, audit.signed));
    }

    fn on_differs(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        (number, auditor): (u64, WorkerId),
        (verdict, computed): (Signed, Vec<Port>),
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        let computed = sorted_ports(&computed);
        let claimed = sorted_ports(&audit.of.leaf.outputs);
        let kinds = |ports: &[Port]| ports.iter().map(|port| port.kind).collect::<Vec<_>>();
        let says_nothing = claimed == computed;
        if says_nothing || kinds(&claimed) != kinds(&computed) {
            // It has not compared all outputs of the leaf, and them alone: as good as no answer.
            let (checker, leaf) = (auditor.short(), leaf_words(&audit.of.leaf));
            let found = kinds(&computed);
            tracing::warn!(
                checker,
                leaf,
                ?found,
                says_nothing,
                "a finding that is inconclusive"
            );
            audit.pass_on(context.now, auditor);
            return Vec::new();
        }
        if let Purpose::Own { .. } = audit.purpose {
            // From now on it is more than the auditor's own affair.
            audit.purpose = Purpose::Doubt;
        }
        audit.pass_on(context.now, auditor);
        audit.contradictions.extend(Contradiction::of(verdict));
        if audit.is_persisted() {
            let (job, audit) = (self.job, audit.persisted(number));
            context
                .out
                .persist(Change::AuditContradicted { job, audit });
        }
        match self.open.get(&number).cloned() {
            Some(audit) if !audit.has_referee(context) => {
                self.confirmed(context, journal, (number, &audit))
            }
            Some(_) | None => Vec::new(),
        }
    }
}
