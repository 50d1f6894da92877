//! What checkers say, and what follows from it.

use concord_proto::client::JobEvent;
use concord_proto::ledger::{Finding, LedgerEvent, Offence, Verdict};
use concord_proto::{Port, Signed, SignedError, WorkerId};
use concord_verify::training::leaf_words;

use super::{
    Accusation, AuditDecision, AuditedLeaf, Conviction, EventContext, JobOrder, Journal, LeafAudit,
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
        let verdict: Verdict = match signed.open() {
            Ok(verdict) => verdict,
            Err(error) => {
                let offence = match error {
                    SignedError::Forged(_) => Offence::Forgery,
                    _ => Offence::Malformed,
                };
                let conviction = Conviction::new(auditor, offence, error.to_string());
                return vec![AuditDecision::Convict(conviction)];
            }
        };
        let Some(audit) = self.open.get_mut(&number) else {
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
        match verdict.finding {
            Finding::Inconclusive { .. } => {
                audit.pass_on(context.now, auditor);
                Vec::new()
            }
            Finding::Agrees => self.on_agrees(job, number, auditor, signed),
            Finding::Differs { computed } => {
                let accusation = Accusation {
                    auditor,
                    computed: sorted(&computed),
                    verdict: signed,
                };
                self.on_differs(context, journal, job, number, accusation)
            }
        }
    }

    /// The audit of an order that this auditor has yet to answer.
    fn ordered(&self, number: u64, by: WorkerId) -> Option<u64> {
        let answers = |audit: &LeafAudit| match audit.standing {
            Standing::Ordered { order, auditor, .. } => order == number && auditor == by,
            Standing::Queued(_) | Standing::Held { .. } => false,
        };
        let mut open = self.open.iter();
        open.find(|(_, audit)| answers(audit)).map(|(n, _)| *n)
    }

    fn on_agrees(
        &mut self,
        job: &JobOrder,
        number: u64,
        auditor: WorkerId,
        verdict: Signed,
    ) -> Vec<AuditDecision> {
        let is_tested = self.is_tested(&auditor);
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        let words = leaf_words(&audit.leaf);
        let false_verdict = |culprit, evidence| {
            AuditDecision::Convict(Conviction::new(culprit, Offence::FalseVerdict, evidence))
        };
        if let Purpose::Canary { .. } = audit.purpose {
            let evidence = format!("it passed an altered leaf, the {words}, as right");
            return vec![false_verdict(auditor, evidence)];
        }
        if audit.accusations.is_empty() && is_tested {
            audit.standing = Standing::Held { auditor, verdict };
            return Vec::new();
        }
        let evidence = format!(
            "it called the {words} by worker {} in {} wrong; {} found it right",
            audit.worker.short(),
            job.spec().words(audit.at.step),
            auditor.short()
        );
        let accusers = audit.accusations.iter().map(|a| a.auditor);
        let accusers = accusers.map(|accuser| false_verdict(accuser, evidence.clone()));
        let accept = AuditDecision::Accept {
            number,
            auditor,
            verdict,
        };
        [accept].into_iter().chain(accusers).collect()
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
            Purpose::Drawn => {
                self.counts.agreed += 1;
                context.members.note_answered(&auditor);
                let audited = JobEvent::Audited {
                    worker: audit.worker,
                    checker: auditor,
                    step: job.spec().updates_before(audit.at.step),
                    evaluation: job.spec().is_evaluation(audit.at.step),
                    leaf: leaf_words(&audit.leaf),
                };
                let worker = audit.worker;
                self.note_agreement(context, steps, auditor, audit);
                journal.write(context, LedgerEvent::Judged { verdict });
                journal.publish(context, audited);
                context.note_passed(&worker);
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
        let audit = Some(audit);
        self.agreements.push(AuditedLeaf { agreement, audit });
        let oldest = steps.saturating_sub(context.config.audit_window);
        for audited in &mut self.agreements {
            if audited.agreement.step < oldest {
                audited.audit = None;
            }
        }
    }

    /// Whether a checker has a canary to answer.
    fn is_tested(&self, checker: &WorkerId) -> bool {
        let tests = |audit: &LeafAudit| match &audit.purpose {
            Purpose::Canary { checker: asked, .. } => asked == checker,
            Purpose::Drawn | Purpose::Dispute | Purpose::Doubt => false,
        };
        self.open.values().any(tests)
    }

    /// Accepts the verdicts that were held back while a checker had a canary to answer, once it has
    /// none.
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
            Standing::Held { .. } | Standing::Queued(_) | Standing::Ordered { .. } => None,
        };
        self.open.iter().filter_map(held).collect()
    }

    fn on_differs(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        number: u64,
        accusation: Accusation,
    ) -> Vec<AuditDecision> {
        let auditor = accusation.auditor;
        let Some(audit) = self.open.get_mut(&number) else {
            return Vec::new();
        };
        if let Purpose::Canary { original, .. } = &audit.purpose {
            let is_truth = sorted(&original.outputs) == accusation.computed;
            let (at, worker, original) = (audit.at, audit.worker, (**original).clone());
            self.close(context, number);
            if !is_truth {
                // What it computed is not what the worker claims, either: the worker's own leaf is
                // re-run.
                let number = self.add(context.now, at, worker, original, Purpose::Doubt);
                if let Some(audit) = self.open.get_mut(&number) {
                    audit.tried.insert(auditor);
                }
            }
            return self.release_held(auditor);
        }
        let claimed = sorted(&audit.leaf.outputs);
        let kinds = |ports: &[Port]| ports.iter().map(|port| port.kind).collect::<Vec<_>>();
        let says_nothing = claimed == accusation.computed;
        if says_nothing || kinds(&claimed) != kinds(&accusation.computed) {
            // It has not compared all outputs of the leaf, and them alone: as good as no answer.
            let (checker, leaf) = (auditor.short(), leaf_words(&audit.leaf));
            let found = kinds(&accusation.computed);
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
        let mut earlier = audit.accusations.iter();
        let confirmed = earlier.find(|a| a.computed == accusation.computed).cloned();
        audit.pass_on(context.now, auditor);
        audit.accusations.push(accusation.clone());
        let Some(first) = confirmed else {
            return Vec::new();
        };
        let conviction = self.convict_of_leaf(context, journal, job, number, [&first, &accusation]);
        conviction.map(AuditDecision::Convict).into_iter().collect()
    }

    /// Two parties re-ran the leaf and agree on outputs other than the claimed ones.
    fn convict_of_leaf(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        number: u64,
        [first, second]: [&Accusation; 2],
    ) -> Option<Conviction> {
        let audit = self.open.get(&number)?.clone();
        let is_final = audit.purpose != Purpose::Dispute;
        if is_final {
            for accusation in [first, second] {
                let verdict = accusation.verdict.clone();
                journal.write(context, LedgerEvent::Judged { verdict });
            }
        }
        let differing = claimed_and_found(&audit, first);
        let evidence = format!(
            "the {} in {}: {differing}, as {} and {} found",
            leaf_words(&audit.leaf),
            job.spec().words(audit.at.step),
            first.auditor.short(),
            second.auditor.short()
        );
        self.close(context, number);
        Some(Conviction {
            culprit: audit.worker,
            offence: Offence::WrongResult,
            evidence,
            wrong: Some(audit.at.step),
        })
    }
}

fn sorted(ports: &[Port]) -> Vec<Port> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.kind, port.digest));
    ports
}

fn claimed_and_found(audit: &LeafAudit, accusation: &Accusation) -> String {
    let claimed = sorted(&audit.leaf.outputs);
    let mut pairs = claimed.iter().zip(&accusation.computed);
    pairs.find(|(claimed, found)| claimed != found).map_or_else(
        || "other outputs".to_string(),
        |(claimed, found)| {
            format!(
                "{:?} is claimed as {} and is {}",
                claimed.kind,
                claimed.digest.short(),
                found.digest.short()
            )
        },
    )
}
