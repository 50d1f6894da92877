//! What contradicts each other is decided by a re-run of the coordinator's own: nobody votes.

use std::collections::BTreeSet;

use concord_proto::ledger::{Finding, LedgerEvent, Offence, Verdict};
use concord_proto::{ClaimedLeaf, Conviction, Digest, Port, Signed, WorkerId};
use concord_verify::training::{leaf_words, sorted_ports};

use super::{
    AuditDecision, Charge, Contradiction, CoreEffect, EventContext, JobOrder, Journal, LeafAudit,
    LeafAudits, Purpose, Queued, Standing,
};

/// So many times the referee tries to get the inputs of a leaf: a link may break for a moment.
const RERUNS_MAX: u32 = 3;

/// What the referee says about a leaf.
pub(in crate::core) struct Refereed {
    pub(in crate::core) finding: Finding,
    /// Addresses of the inputs.
    pub(in crate::core) inputs: Vec<Vec<Digest>>,
    /// What it knows of the leaf, under the key that was asked for.
    pub(in crate::core) trace: Digest,
}

/// What the referee has found, and from what.
struct Rerun {
    /// The addresses of the inputs.
    inputs: Vec<Vec<Digest>>,
    /// Sorted.
    computed: Vec<Port>,
    /// Under the key that it was asked for.
    trace: Digest,
}

impl LeafAudits {
    /// Workers of which a leaf was called wrong, until that is decided: they take no new seat.
    pub(in super::super) fn accused(&self) -> impl Iterator<Item = WorkerId> {
        let is_accused = |audit: &&LeafAudit| !audit.contradictions.is_empty();
        let accused = self.open.values().filter(is_accused);
        accused.map(|audit| audit.of.worker)
    }

    /// Who has given a verdict that the referee is yet to decide about.
    pub(super) fn doubted(&self, context: &EventContext) -> BTreeSet<WorkerId> {
        let open = self
            .open
            .values()
            .filter(|audit| audit.has_referee(context));
        let contradictions = open.flat_map(|audit| &audit.contradictions);
        contradictions.map(Contradiction::auditor).collect()
    }

    /// Has the referee re-run a leaf. It takes one at a time, those that a step waits for first.
    pub(super) fn hand_to_referee(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        queued: Queued,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get(&queued.number) else {
            return Vec::new();
        };
        if context.members.session(&audit.of.worker).is_none() {
            return self.give_up(context, journal, queued);
        }
        let tries = u64::from(audit.failed_reruns);
        let pause = context.config.opening_grace_us.saturating_mul(tries);
        let is_dispute = audit.purpose == Purpose::Dispute;
        let goes_first = |other: &LeafAudit| {
            let is_queued = matches!(other.standing, Standing::Queued(_));
            let is_urgent = other.purpose == Purpose::Dispute && is_queued && !is_dispute;
            is_urgent || matches!(other.standing, Standing::Refereed { .. })
        };
        if context.now.since(queued.since) < pause || self.open.values().any(goes_first) {
            return Vec::new();
        }
        let order = self.next_number();
        if let Some(audit) = self.open.get_mut(&queued.number) {
            audit.standing = Standing::Refereed { order };
            let order = Box::new(audit.order(context, job, order));
            let traced = match &audit.purpose {
                Purpose::Recheck { verdict } => verdict.signer,
                Purpose::Own { .. } | Purpose::Dispute | Purpose::Doubt => audit.of.worker,
            };
            context.out.tell(CoreEffect::Referee { order, traced });
        }
        Vec::new()
    }

    /// The referee has re-run a leaf.
    pub(in super::super) fn refereed(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        order: u64,
        Refereed {
            finding,
            inputs,
            trace,
        }: Refereed,
    ) -> Vec<AuditDecision> {
        let is_asked = |audit: &LeafAudit| audit.standing == Standing::Refereed { order };
        let mut open = self.open.iter_mut();
        // The step may be void by now.
        let Some((&number, audit)) = open.find(|(_, audit)| is_asked(audit)) else {
            return Vec::new();
        };
        let claimed = sorted_ports(&audit.of.leaf.outputs);
        let computed = match finding {
            Finding::Agrees => claimed.clone(),
            Finding::Differs { computed } => sorted_ports(&computed),
            Finding::Inconclusive { reason } => {
                audit.failed_reruns += 1;
                audit.standing = Standing::Queued(context.now);
                if audit.failed_reruns < RERUNS_MAX {
                    return Vec::new();
                }
                return self.undecided(context, journal, number, &reason);
            }
        };
        let kinds = |ports: &[Port]| ports.iter().map(|port| port.kind).collect::<Vec<_>>();
        if kinds(&computed) != kinds(&claimed) {
            let why = "its re-run gives other outputs than the leaf names";
            return self.undecided(context, journal, number, why);
        }
        let rerun = Rerun {
            inputs,
            computed,
            trace,
        };
        self.decide(context, journal, job, number, &rerun)
    }

    /// The referee has no memory for a leaf: as without one, others give their opinion.
    pub(in super::super) fn beyond_referee(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        order: u64,
    ) -> Vec<AuditDecision> {
        let is_asked = |audit: &LeafAudit| audit.standing == Standing::Refereed { order };
        let mut open = self.open.iter_mut();
        let Some((&number, audit)) = open.find(|(_, audit)| is_asked(audit)) else {
            return Vec::new();
        };
        audit.is_beyond_referee = true;
        audit.standing = Standing::Queued(context.now);
        let audit = audit.clone();
        self.confirmed(context, journal, (number, &audit))
    }

    /// Whoever has signed something else than the re-run gives is guilty.
    fn decide(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        number: u64,
        rerun: &Rerun,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get(&number).cloned() else {
            return Vec::new();
        };
        let is_right = rerun.computed == sorted_ports(&audit.of.leaf.outputs);
        let (truths, lies): (Vec<&Contradiction>, Vec<&Contradiction>) = audit
            .contradictions
            .iter()
            .partition(|one| one.said == rerun.computed);
        self.close(context, number);
        let mut decisions = Vec::new();
        if !is_right {
            for truth in &truths {
                let verdict = truth.verdict.clone();
                journal.write(context, LedgerEvent::Judged { verdict });
            }
            let charge = audit.wrong_result(job, rerun, &truths);
            decisions.push(AuditDecision::Convict(charge));
        } else if audit.purpose == Purpose::Dispute {
            decisions.push(AuditDecision::DisputeAgrees { number });
        }
        let lies = lies.into_iter().map(|lie| &lie.verdict);
        let charges = lies.map(|lie| audit.false_verdict(job, rerun, lie));
        decisions.extend(charges.map(AuditDecision::Convict));
        if let Purpose::Recheck { verdict } = &audit.purpose {
            let said = verdict.open::<Verdict>();
            let has_trace = said.is_ok_and(|said| said.trace == rerun.trace);
            if !is_right || !has_trace {
                let charge = audit.false_verdict(job, rerun, verdict);
                decisions.push(AuditDecision::Convict(charge));
            }
        }
        decisions
    }

    /// Nothing can decide about a leaf: nobody is convicted. The job does without the worker that
    /// was accused.
    pub(super) fn undecided(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        number: u64,
        why: &str,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get(&number).cloned() else {
            return Vec::new();
        };
        if audit.is_recheck() {
            self.close(context, number);
            return Vec::new();
        }
        if audit.contradictions.is_empty() {
            // Where others have tried, its worker has not given what it takes.
            let mut tried = audit.tried.iter();
            let was_tried = audit.failed_reruns > 0 || tried.any(|by| *by != audit.of.worker);
            let withheld_by = was_tried.then_some(audit.of.worker);
            return vec![AuditDecision::DisputeUndecided { withheld_by }];
        }
        let words = leaf_words(&audit.of.leaf);
        let worker = audit.of.worker.short();
        let reason = format!(
            "a checker found a leaf of worker {worker} wrong, the {words}, and nothing decides \
             about it: {why}"
        );
        vec![self.leave_worker_out(context, journal, (number, &audit), reason)]
    }

    /// Closes the audit of an accused worker, which the job is to do without. What was said
    /// against it is written down.
    pub(super) fn leave_worker_out(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        (number, audit): (u64, &LeafAudit),
        reason: String,
    ) -> AuditDecision {
        let void = (audit.purpose != Purpose::Dispute).then_some(audit.of.at.step);
        if void.is_some() {
            audit.write_verdicts(context, journal);
        }
        self.inconclusive(context, number);
        AuditDecision::LeaveOut {
            party: audit.of.worker,
            void,
            reason,
        }
    }
}

impl LeafAudit {
    /// Whether the referee can decide about it.
    pub(super) fn has_referee(&self, context: &EventContext) -> bool {
        context.config.referee && !self.is_beyond_referee
    }

    /// Writes the verdicts against the leaf.
    pub(super) fn write_verdicts(&self, context: &mut EventContext, journal: &mut Journal) {
        for contradiction in &self.contradictions {
            let verdict = contradiction.verdict.clone();
            journal.write(context, LedgerEvent::Judged { verdict });
        }
    }

    /// The leaf, with the claim that it is in.
    fn claimed(&self) -> Option<ClaimedLeaf> {
        let digest = self.of.leaf.digest();
        let halves = self.signed.iter();
        let mut own = halves.filter(|half| half.signed.signer == self.of.worker);
        own.find_map(|half| ClaimedLeaf::of(&half.signed, &half.leaves, &digest))
    }

    fn wrong_result(&self, job: &JobOrder, rerun: &Rerun, found: &[&Contradiction]) -> Charge {
        let claimed = sorted_ports(&self.of.leaf.outputs);
        let mut pairs = claimed.iter().zip(&rerun.computed);
        let differing = pairs.find(|(claimed, found)| claimed != found).map_or_else(
            || "other outputs".to_string(),
            |(claimed, found)| {
                format!(
                    "{:?} is claimed as {} and is {}",
                    claimed.kind,
                    claimed.digest.short(),
                    found.digest.short()
                )
            },
        );
        let finders: String = found
            .iter()
            .map(|one| format!("{} and ", one.auditor().short()))
            .collect();
        let evidence = format!(
            "the {} in {}: {differing}, as {finders}the referee found",
            leaf_words(&self.of.leaf),
            job.spec().words(self.of.at.step),
        );
        let conviction = self.claimed().map(|claimed| {
            Box::new(Conviction::WrongResult {
                claimed,
                inputs: rerun.inputs.clone(),
                computed: rerun.computed.clone(),
            })
        });
        Charge {
            conviction,
            wrong: Some(self.of.at.step),
            ..Charge::new(self.of.worker, Offence::WrongResult, evidence)
        }
    }

    fn false_verdict(&self, job: &JobOrder, rerun: &Rerun, lie: &Signed) -> Charge {
        let leaf = format!(
            "the {} by worker {} in {}",
            leaf_words(&self.of.leaf),
            self.of.worker.short(),
            job.spec().words(self.of.at.step),
        );
        let is_right = rerun.computed == sorted_ports(&self.of.leaf.outputs);
        let evidence = match (self.is_recheck(), is_right) {
            (false, _) => format!("it called {leaf} wrong; the referee found something else"),
            (true, true) => format!("it called {leaf} right and shows no trace of a re-run"),
            (true, false) => format!("it called {leaf} right, which is wrong"),
        };
        let conviction = self.claimed().map(|claimed| {
            Box::new(Conviction::FalseVerdict {
                verdict: lie.clone(),
                claimed,
                inputs: rerun.inputs.clone(),
                computed: rerun.computed.clone(),
                trace: rerun.trace,
            })
        });
        Charge {
            conviction,
            ..Charge::new(lie.signer, Offence::FalseVerdict, evidence)
        }
    }
}
