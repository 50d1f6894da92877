//! What checkers say, and what follows from it.

use concord_proto::client::JobEvent;
use concord_proto::ledger::{Finding, LedgerEvent, Verdict};
use concord_proto::{Port, Signed, WorkerId};
use concord_verify::training::{leaf_words, sorted_ports};

use super::{
    AuditDecision, AuditedLeaf, Change, Contradiction, EventContext, JobOrder, Journal, LeafAudit,
    LeafAudits, PersistedAgreement, Purpose, Standing,
};

impl LeafAudits {
    /// A checker, or a third party, answers an order.
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
        let about = (verdict.job, verdict.step, verdict.epoch, verdict.worker);
        let ordered = (job.id, audit.at.step, audit.at.epoch, audit.worker);
        let fits = about == ordered && verdict.leaf == audit.leaf.digest();
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
            Finding::Agrees => self.on_agrees(context, journal, job, (number, auditor), signed),
            Finding::Differs { computed } => {
                self.on_differs(context, journal, (number, auditor), (signed, computed))
            }
        }
    }

    /// The audit of an order that this auditor has yet to answer.
    fn ordered(&self, number: u64, by: WorkerId) -> Option<u64> {
        let answers = |audit: &LeafAudit| match audit.standing {
            Standing::Ordered { order, auditor, .. } => order == number && auditor == by,
            Standing::Queued(_) | Standing::Held { .. } | Standing::Refereed { .. } => false,
        };
        let mut open = self.open.iter();
        open.find(|(_, audit)| answers(audit)).map(|(n, _)| *n)
    }

    fn on_agrees(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        (number, auditor): (u64, WorkerId),
        verdict: Signed,
    ) -> Vec<AuditDecision> {
        let is_tested = self.is_tested(&auditor);
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        if audit.is_canary_of(&auditor) {
            return self.contradicted(context, journal, number, verdict);
        }
        if !audit.contradictions.is_empty() {
            return self.outvote(context, journal, job, (number, auditor), verdict);
        }
        if is_tested {
            audit.standing = Standing::Held { auditor, verdict };
            return Vec::new();
        }
        vec![AuditDecision::Accept {
            number,
            auditor,
            verdict,
        }]
    }

    /// Notes that a leaf is right. So many steps of the job are final.
    pub(in super::super) fn accept(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        (job, steps): (&JobOrder, u32),
        number: u64,
        auditor: WorkerId,
        verdict: Signed,
    ) -> Option<AuditDecision> {
        let audit = self.open.get(&number)?.clone();
        self.close(context, number);
        match audit.purpose {
            Purpose::Dispute => return Some(AuditDecision::DisputeAgrees { number }),
            Purpose::Drawn | Purpose::Own { .. } => {
                self.counts.agreed += 1;
                context.members.note_answered(&auditor);
                let audited = JobEvent::Audited {
                    worker: audit.worker,
                    checker: auditor,
                    step: job.spec().updates_before(audit.at.step),
                    evaluation: job.spec().is_evaluation(audit.at.step),
                    leaf: leaf_words(&audit.leaf),
                };
                // Who is audited by an auditor's own draw is not trusted more for that: a client's
                // auditor may be the worker's.
                let worker = (audit.purpose == Purpose::Drawn).then_some(audit.worker);
                self.note_agreement(context, steps, auditor, audit);
                journal.write(context, LedgerEvent::Judged { verdict });
                journal.publish(context, audited);
                if let Some(worker) = worker {
                    context.note_passed(&worker);
                }
            }
            Purpose::Doubt | Purpose::Canary { .. } => {}
        }
        None
    }

    /// Notes who found a leaf right; keeps the leaf while its worker may still open it.
    fn note_agreement(
        &mut self,
        context: &EventContext,
        steps: u32,
        checker: WorkerId,
        audit: LeafAudit,
    ) {
        let agreement = PersistedAgreement {
            checker,
            step: audit.at.step,
            leaf: audit.leaf.digest(),
        };
        // What an auditor drew itself is nobody else's to re-run.
        let audit = Some(audit).filter(|audit| !matches!(audit.purpose, Purpose::Own { .. }));
        self.agreements.push(AuditedLeaf { agreement, audit });
        let oldest = steps.saturating_sub(context.config.audit_window);
        for audited in &mut self.agreements {
            if audited.agreement.step < oldest {
                audited.audit = None;
            }
        }
    }

    /// Whether a checker has yet to show that it looks: it has a canary to answer, or a verdict
    /// that is to be decided about.
    fn is_tested(&self, checker: &WorkerId) -> bool {
        let mut open = self.open.values();
        open.any(|audit| audit.tests().contains(checker))
    }

    /// Accepts the verdicts that were held back while a checker had yet to show that it looks, once
    /// it has.
    pub(super) fn release_held(&self, checker: WorkerId) -> Vec<AuditDecision> {
        if self.is_tested(&checker) {
            return Vec::new();
        }
        let held = |(number, audit): (&u64, &LeafAudit)| match &audit.standing {
            Standing::Held { auditor, verdict } if *auditor == checker => {
                Some(AuditDecision::Accept {
                    number: *number,
                    auditor: checker,
                    verdict: verdict.clone(),
                })
            }
            Standing::Held { .. }
            | Standing::Queued(_)
            | Standing::Ordered { .. }
            | Standing::Refereed { .. } => None,
        };
        self.open.iter().filter_map(held).collect()
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
        if let Purpose::Canary { original, .. } = &audit.purpose
            && sorted_ports(&original.outputs) == computed
        {
            self.close(context, number);
            return self.release_held(auditor);
        }
        let claimed = sorted_ports(&audit.leaf.outputs);
        let kinds = |ports: &[Port]| ports.iter().map(|port| port.kind).collect::<Vec<_>>();
        let says_nothing = claimed == computed;
        if says_nothing || kinds(&claimed) != kinds(&computed) {
            // It has not compared all outputs of the leaf, and them alone: as good as no answer.
            let (checker, leaf) = (auditor.short(), leaf_words(&audit.leaf));
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
        self.contradicted(context, journal, number, verdict)
    }

    /// Notes a verdict that does not fit what the worker claims. A canary becomes an audit of the
    /// leaf that it was made of.
    fn contradicted(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        number: u64,
        verdict: Signed,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        let auditor = verdict.signer;
        let shown = audit.leaf.outputs.clone();
        if let Purpose::Canary { original, .. } = &audit.purpose {
            audit.leaf = (**original).clone();
            audit.purpose = Purpose::Doubt;
        }
        if let Purpose::Own { .. } = audit.purpose {
            // From now on it is more than the auditor's own affair, and outlives a restart.
            audit.purpose = Purpose::Doubt;
        }
        audit.pass_on(context.now, auditor);
        audit
            .contradictions
            .extend(Contradiction::of(verdict, shown));
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
