//! What checkers say, and what follows from it.

use concord_proto::client::JobEvent;
use concord_proto::ledger::{Finding, LedgerEvent, Offence, Verdict};
use concord_proto::{Port, Signed, SignedError, WorkerId};
use concord_verify::training::leaf_words;

use super::audit::{Accusation, Audit, Purpose, Standing};
use super::desk::Desk;
use super::job::Job;

impl Job {
    /// A checker, or a third party, answers an order.
    pub(super) fn on_verdict(
        &mut self,
        desk: &mut Desk,
        judge: WorkerId,
        order: u64,
        signed: Signed,
    ) {
        let answers = |audit: &Audit| {
            matches!(audit.standing, Standing::Ordered { order: o, judge: j, .. }
                if o == order && j == judge)
        };
        let mut open = self.audits.open.iter();
        // An order that was handed on since: the answer is late.
        let Some(number) = open.find(|(_, audit)| answers(audit)).map(|(n, _)| *n) else {
            return;
        };
        let verdict: Verdict = match signed.open() {
            Ok(verdict) => verdict,
            Err(error) => {
                let offence = match error {
                    SignedError::Forged(_) => Offence::Forgery,
                    _ => Offence::Malformed,
                };
                return self.convict(desk, judge, offence, error.to_string(), None);
            }
        };
        let Some(audit) = self.audits.open.get_mut(&number) else {
            return;
        };
        let about = (verdict.job, verdict.step, verdict.epoch, verdict.worker);
        let ordered = (self.id, audit.step, audit.epoch, audit.worker);
        let fits = about == ordered && verdict.leaf == audit.leaf.digest();
        if !fits || signed.signer != judge {
            // No answer to what was asked: somebody else is asked.
            return audit.pass_on(desk.now, judge);
        }
        match verdict.finding {
            Finding::Inconclusive { .. } => audit.pass_on(desk.now, judge),
            Finding::Agrees => self.on_agrees(desk, number, judge, signed),
            Finding::Differs { computed } => {
                let accusation = Accusation {
                    judge,
                    computed: sorted(&computed),
                    verdict: signed,
                };
                self.on_differs(desk, number, accusation);
            }
        }
    }

    fn on_agrees(&mut self, desk: &mut Desk, number: u64, judge: WorkerId, verdict: Signed) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        if let Purpose::Canary { .. } = audit.purpose {
            let words = leaf_words(&audit.leaf);
            let evidence = format!("it passed an altered leaf, the {words}, as right");
            return self.convict(desk, judge, Offence::FalseVerdict, evidence, None);
        }
        let accusers: Vec<WorkerId> = audit.accusations.iter().map(|a| a.judge).collect();
        let words = leaf_words(&audit.leaf);
        let (accused, step) = (audit.worker, audit.step);
        if accusers.is_empty() && self.audits.is_tested(&judge) {
            if let Some(audit) = self.audits.open.get_mut(&number) {
                audit.standing = Standing::Held { judge, verdict };
            }
            return;
        }
        self.accept(desk, number, judge, verdict);
        for accuser in accusers {
            let evidence = format!(
                "it called the {words} by worker {} in step {step} wrong; {} found it right",
                accused.short(),
                judge.short()
            );
            self.convict(desk, accuser, Offence::FalseVerdict, evidence, None);
        }
    }

    /// The leaf is right.
    fn accept(&mut self, desk: &mut Desk, number: u64, judge: WorkerId, verdict: Signed) {
        let Some(audit) = self.audits.open.get(&number).cloned() else {
            return;
        };
        self.close_audit(desk, number);
        match audit.purpose {
            Purpose::Contest => self.contest_agrees(desk, number),
            Purpose::Drawn => {
                self.audits.agreed += 1;
                desk.pool.note_answered(&judge);
                self.note_judged(desk, judge, audit.clone());
                self.write(desk, LedgerEvent::Judged { verdict });
                let audited = JobEvent::Audited {
                    worker: audit.worker,
                    checker: judge,
                    step: audit.step,
                    leaf: leaf_words(&audit.leaf),
                };
                self.publish(desk, audited);
                if let Some(member) = desk.pool.get_mut(&audit.worker) {
                    member.passed += 1;
                    let kept = member.kept();
                    desk.out.keep(kept);
                }
            }
            Purpose::Doubt | Purpose::Canary { .. } => {}
        }
    }

    /// Accepts what a checker said while it had a canary to answer.
    pub(super) fn release_held(&mut self, desk: &mut Desk, checker: WorkerId) {
        if self.audits.is_tested(&checker) {
            return;
        }
        let held = |(number, audit): (&u64, &Audit)| match &audit.standing {
            Standing::Held { judge, verdict } if *judge == checker => {
                Some((*number, verdict.clone()))
            }
            _ => None,
        };
        let held: Vec<(u64, Signed)> = self.audits.open.iter().filter_map(held).collect();
        for (number, verdict) in held {
            self.accept(desk, number, checker, verdict);
        }
    }

    fn on_differs(&mut self, desk: &mut Desk, number: u64, accusation: Accusation) {
        let judge = accusation.judge;
        let Some(audit) = self.audits.open.get_mut(&number) else {
            return;
        };
        if let Purpose::Canary { original, .. } = &audit.purpose {
            let is_truth = sorted(&original.outputs) == accusation.computed;
            let (at, worker) = ((audit.step, audit.epoch), audit.worker);
            let original = (**original).clone();
            self.close_audit(desk, number);
            if !is_truth {
                // Neither the alteration nor the claim: the claim itself is looked at.
                let doubt = Purpose::Doubt;
                let number = self.audits.open(desk.now, at, worker, original, doubt);
                if let Some(audit) = self.audits.open.get_mut(&number) {
                    audit.tried.insert(judge);
                }
            }
            return self.release_held(desk, judge);
        }
        let claimed = sorted(&audit.leaf.outputs);
        let kinds = |ports: &[Port]| ports.iter().map(|port| port.kind).collect::<Vec<_>>();
        let says_nothing = claimed == accusation.computed;
        if says_nothing || kinds(&claimed) != kinds(&accusation.computed) {
            return audit.pass_on(desk.now, judge);
        }
        let mut earlier = audit.accusations.iter();
        let confirmed = earlier.find(|a| a.computed == accusation.computed).cloned();
        audit.pass_on(desk.now, judge);
        audit.accusations.push(accusation.clone());
        if let Some(first) = confirmed {
            self.convict_of_leaf(desk, number, &first, &accusation);
        }
    }

    /// Two parties re-ran the leaf and found the same other outputs.
    fn convict_of_leaf(
        &mut self,
        desk: &mut Desk,
        number: u64,
        first: &Accusation,
        second: &Accusation,
    ) {
        let Some(audit) = self.audits.open.get(&number).cloned() else {
            return;
        };
        let is_final = audit.purpose != Purpose::Contest;
        if is_final {
            for accusation in [first, second] {
                let verdict = accusation.verdict.clone();
                self.write(desk, LedgerEvent::Judged { verdict });
            }
        }
        let differing = claimed_and_found(&audit, first);
        let evidence = format!(
            "the {} in step {}: {differing}, as {} and {} found",
            leaf_words(&audit.leaf),
            audit.step,
            first.judge.short(),
            second.judge.short()
        );
        self.close_audit(desk, number);
        let (culprit, wrong) = (audit.worker, Some(audit.step));
        self.convict(desk, culprit, Offence::WrongResult, evidence, wrong);
    }
}

fn sorted(ports: &[Port]) -> Vec<Port> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.kind, port.digest));
    ports
}

fn claimed_and_found(audit: &Audit, accusation: &Accusation) -> String {
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
