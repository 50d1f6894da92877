//! What contradicts each other is decided by a re-run of the coordinator's own: nobody votes.

use std::collections::BTreeSet;

use concord_proto::ledger::{Finding, LedgerEvent, Offence};
use concord_proto::{ClaimedLeaf, Conviction, Digest, Port, WorkerId};
use concord_verify::training::{leaf_words, sorted_ports};

use super::{
    AuditDecision, Change, Charge, Contradiction, CoreEffect, EventContext, JobOrder, Journal,
    LeafAudit, LeafAudits, Purpose, Queued, Standing,
};

/// So many times the referee tries to get the inputs of a leaf: a link may break for a moment.
const RERUNS_MAX: u32 = 3;

/// What the referee has found, and from what.
struct Rerun {
    /// The addresses of the inputs.
    inputs: Vec<Vec<Digest>>,
    /// Sorted.
    computed: Vec<Port>,
}

impl LeafAudits {
    /// Workers of which a leaf was called wrong, until that is decided: they take no new seat.
    pub(in super::super) fn accused(&self) -> impl Iterator<Item = WorkerId> {
        let is_accused = |audit: &&LeafAudit| audit.contradictions.iter().any(|one| one.accuses);
        let accused = self.open.values().filter(is_accused);
        accused.map(|audit| audit.worker)
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
        if context.members.session(&audit.worker).is_none() {
            return self.give_up(context, journal, job, queued);
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
            context.out.tell(CoreEffect::Referee(order));
        }
        Vec::new()
    }

    /// The referee has re-run a leaf, from inputs at these addresses.
    pub(in super::super) fn refereed(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        order: u64,
        (finding, inputs): (Finding, Vec<Vec<Digest>>),
    ) -> Vec<AuditDecision> {
        let is_asked = |audit: &LeafAudit| audit.standing == Standing::Refereed { order };
        let mut open = self.open.iter_mut();
        // The step may be void by now.
        let Some((&number, audit)) = open.find(|(_, audit)| is_asked(audit)) else {
            return Vec::new();
        };
        let claimed = sorted_ports(&audit.leaf.outputs);
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
        self.decide(context, journal, job, number, &Rerun { inputs, computed })
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
        let is_right = rerun.computed == sorted_ports(&audit.leaf.outputs);
        let (truths, lies): (Vec<&Contradiction>, Vec<&Contradiction>) = audit
            .contradictions
            .iter()
            .partition(|one| one.said == rerun.computed);
        let mut decisions = Vec::new();
        if is_right {
            self.note_right(context, number, &mut decisions);
        } else {
            self.close(context, number);
            for verdict in truths.iter().filter(|one| one.is_about(&audit.leaf)) {
                let verdict = verdict.verdict.clone();
                journal.write(context, LedgerEvent::Judged { verdict });
            }
            let charge = audit.wrong_result(job, rerun, &truths);
            decisions.push(AuditDecision::Convict(charge));
        }
        let lies = lies.into_iter();
        let charges = lies.map(|lie| audit.false_verdict(job, rerun, lie));
        decisions.extend(charges.map(AuditDecision::Convict));
        for truth in truths {
            // It looks: what was held back until that was shown is accepted.
            decisions.extend(self.release_held(truth.auditor()));
        }
        decisions
    }

    /// The referee has found a leaf right. One that was drawn still needs the word of a checker.
    fn note_right(
        &mut self,
        context: &mut EventContext,
        number: u64,
        decisions: &mut Vec<AuditDecision>,
    ) {
        let Some(audit) = self.open.get_mut(&number) else {
            return;
        };
        match audit.purpose {
            Purpose::Dispute => decisions.push(AuditDecision::DisputeAgrees { number }),
            Purpose::Drawn => {
                audit.contradictions.clear();
                audit.standing = Standing::Queued(context.now);
                let (job, audit) = (self.job, audit.persisted(number));
                context
                    .out
                    .persist(Change::AuditContradicted { job, audit });
                return;
            }
            Purpose::Own { .. } | Purpose::Doubt | Purpose::Canary { .. } => {}
        }
        self.close(context, number);
    }

    /// Nothing can decide about a leaf: nobody is convicted. The job does without the worker that
    /// was accused; where a checker only did not find what was altered, without the checker.
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
        if audit.contradictions.is_empty() {
            // Where others have tried, its worker has not given what it takes.
            let mut tried = audit.tried.iter();
            let was_tried = audit.failed_reruns > 0 || tried.any(|by| *by != audit.worker);
            let withheld_by = was_tried.then_some(audit.worker);
            return vec![AuditDecision::DisputeUndecided { withheld_by }];
        }
        let words = leaf_words(&audit.leaf);
        let worker = audit.worker.short();
        if !audit.contradictions.iter().any(|one| one.accuses) {
            self.close(context, number);
            let leave_out = |one: &Contradiction| AuditDecision::LeaveOut {
                party: one.auditor(),
                void: None,
                reason: format!(
                    "checker {} took an altered leaf for right, the {words} by worker {worker}, \
                     and nothing decides about it: {why}",
                    one.auditor().short()
                ),
            };
            return audit.contradictions.iter().map(leave_out).collect();
        }
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
        let void = (audit.purpose != Purpose::Dispute).then_some(audit.at.step);
        if void.is_some() {
            audit.write_verdicts(context, journal);
        }
        self.inconclusive(context, journal, number, reason.clone());
        AuditDecision::LeaveOut {
            party: audit.worker,
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

    /// Writes the verdicts that are about the leaf as it was claimed.
    pub(super) fn write_verdicts(&self, context: &mut EventContext, journal: &mut Journal) {
        let about = self.contradictions.iter();
        for contradiction in about.filter(|one| one.is_about(&self.leaf)) {
            let verdict = contradiction.verdict.clone();
            journal.write(context, LedgerEvent::Judged { verdict });
        }
    }

    /// The leaf, with the claim that it is in.
    fn claimed(&self) -> Option<ClaimedLeaf> {
        let digest = self.leaf.digest();
        let halves = self.signed.iter();
        let mut own = halves.filter(|half| half.signed.signer == self.worker);
        own.find_map(|half| ClaimedLeaf::of(&half.signed, &half.leaves, &digest))
    }

    fn wrong_result(&self, job: &JobOrder, rerun: &Rerun, found: &[&Contradiction]) -> Charge {
        let claimed = sorted_ports(&self.leaf.outputs);
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
        let finders = found.iter().filter(|one| one.accuses);
        let finders: String = finders
            .map(|one| format!("{} and ", one.auditor().short()))
            .collect();
        let evidence = format!(
            "the {} in {}: {differing}, as {finders}the referee found",
            leaf_words(&self.leaf),
            job.spec().words(self.at.step),
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
            wrong: Some(self.at.step),
            ..Charge::new(self.worker, Offence::WrongResult, evidence)
        }
    }

    fn false_verdict(&self, job: &JobOrder, rerun: &Rerun, lie: &Contradiction) -> Charge {
        let words = leaf_words(&self.leaf);
        let is_shown = lie.is_about(&self.leaf);
        let evidence = match is_shown || lie.accuses {
            true => format!(
                "it called the {words} by worker {} in {} wrong; the referee found something else",
                self.worker.short(),
                job.spec().words(self.at.step),
            ),
            false => format!("it passed an altered leaf, the {words}, as right"),
        };
        let conviction = self.claimed().map(|claimed| {
            Box::new(Conviction::FalseVerdict {
                verdict: lie.verdict.clone(),
                claimed,
                altered: (!is_shown).then(|| lie.shown.clone()),
                inputs: rerun.inputs.clone(),
                computed: rerun.computed.clone(),
            })
        });
        Charge {
            conviction,
            ..Charge::new(lie.auditor(), Offence::FalseVerdict, evidence)
        }
    }
}
