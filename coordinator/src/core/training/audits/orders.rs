//! Who re-runs what: orders to checkers, canaries among them, and what nobody can audit.

use concord_proto::session::{AuditOrder, Role, ToWorker};
use concord_proto::{Digest, Leaf, Port, PortKind, WorkerId};

use super::{
    AuditDecision, Bait, EventContext, JobOrder, Journal, LeafAudit, LeafAudits, PlannedStep,
    Purpose, Queued, Standing,
};

/// Who might re-run a leaf.
enum Candidate {
    Found(WorkerId),
    AllBusy,
    Nobody,
}

impl LeafAudits {
    /// Takes back what was not answered, and gives what waits for somebody to re-run it. Where
    /// `sums_again`, a sum takes as long as the microbatches that are computed again for it.
    pub(in super::super) fn take_back(
        &mut self,
        context: &mut EventContext,
        sums_again: bool,
    ) -> Vec<Queued> {
        let late = context.config.audit_timeout_us;
        let mut silent = Vec::new();
        for (number, audit) in &mut self.open {
            if let Standing::Ordered { auditor, since, .. } = audit.standing {
                let is_gone = context.members.session(&auditor).is_none();
                let computed = match sums_again {
                    true => microbatches(&audit.leaf),
                    false => 1,
                };
                let late = late.saturating_mul(computed);
                if is_gone || context.now.since(since) > late {
                    audit.pass_on(context.now, auditor);
                    let is_canary = matches!(audit.purpose, Purpose::Canary { .. });
                    silent.extend(is_canary.then_some((*number, auditor)));
                }
            }
        }
        for (number, checker) in silent {
            // It did not answer its canary: the verdicts that were held back for it are not
            // accepted.
            self.close(context, number);
            self.ask_others(context.now, checker);
        }
        self.asked.clear();
        for audit in self.open.values() {
            if let Standing::Ordered { auditor, .. } = audit.standing {
                *self.asked.entry(auditor).or_default() += 1;
            }
        }
        let queued = |(number, audit): (&u64, &LeafAudit)| match audit.standing {
            Standing::Queued(since) => Some(Queued {
                number: *number,
                since,
            }),
            Standing::Ordered { .. } | Standing::Held { .. } => None,
        };
        self.open.iter().filter_map(queued).collect()
    }

    /// Hands a leaf out, or gives it up where nobody can audit it. A decision about another leaf
    /// may have closed its audit already.
    pub(in super::super) fn hand_out(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        queued: Queued,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get(&queued.number) else {
            return Vec::new();
        };
        match self.candidate(context, audit) {
            Candidate::Found(auditor) => {
                self.order(context, journal, job, queued.number, auditor);
                Vec::new()
            }
            Candidate::AllBusy => Vec::new(),
            Candidate::Nobody => self.give_up(context, journal, job, queued),
        }
    }

    fn candidate(&self, context: &EventContext, audit: &LeafAudit) -> Candidate {
        if context.members.session(&audit.worker).is_none() {
            return Candidate::Nobody;
        }
        if let Purpose::Canary { checker, .. } = &audit.purpose {
            let is_here = context.members.session(checker).is_some();
            return if is_here && !audit.tried.contains(checker) {
                Candidate::Found(*checker)
            } else {
                Candidate::Nobody
            };
        }
        let may_audit = |id: &WorkerId| *id != audit.worker && !audit.tried.contains(id);
        let of_role = |role| {
            let members = context.members.connected();
            let members = members.filter(move |member| member.role == role);
            let free = members.map(|member| member.id).filter(|id| may_audit(id));
            free.min_by_key(|id| (self.in_flight(id), *id))
        };
        // Checkers re-run leaves, because they have no part in the work. Workers only decide
        // accusations and disputes that no checker is left for.
        let is_urgent = !audit.accusations.is_empty() || audit.purpose == Purpose::Dispute;
        let worker = || is_urgent.then(|| of_role(Role::Worker)).flatten();
        match of_role(Role::Checker).or_else(worker) {
            None => Candidate::Nobody,
            Some(id) if self.in_flight(&id) >= context.config.audits_in_flight => {
                Candidate::AllBusy
            }
            Some(id) => Candidate::Found(id),
        }
    }

    /// Orders that an auditor has yet to answer: counted once for all leaves that wait, of which
    /// an evaluation may have thousands.
    fn in_flight(&self, auditor: &WorkerId) -> usize {
        self.asked.get(auditor).copied().unwrap_or(0)
    }

    fn order(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        number: u64,
        auditor: WorkerId,
    ) {
        journal.enrol(context, &auditor, true);
        let order = self.next_number();
        let Some(audit) = self.open.get_mut(&number) else {
            return;
        };
        audit.standing = Standing::Ordered {
            order,
            auditor,
            since: context.now,
        };
        let message = AuditOrder {
            order,
            spec: job.spec_blob,
            job: job.id,
            epoch: audit.at.epoch,
            step: audit.at.step,
            worker: audit.worker,
            endpoint: context.endpoint(&audit.worker),
            leaf: audit.leaf.clone(),
        };
        let (at, bait) = (audit.at, audit.bait.take());
        *self.asked.entry(auditor).or_default() += 1;
        context.send(&auditor, ToWorker::Audit(Box::new(message)));
        let member = context.members.get(&auditor);
        let is_checker = member.is_some_and(|member| member.role == Role::Checker);
        if let (Some(bait), true) = (bait, is_checker) {
            self.test_checker(context, journal, job, at, auditor, bait);
        }
    }

    /// Now and then, and the first time in any case, a checker gets a leaf that is altered.
    fn test_checker(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        at: PlannedStep,
        checker: WorkerId,
        bait: Bait,
    ) {
        let rate = job.options().canary_rate;
        let numbers = [self.next, at.step.into()];
        let lot = context.lot(&job.id, "canary", numbers);
        let is_first = !self.tested.contains(&checker);
        if rate == 0 || (!is_first && u64::from(lot) >= rate) {
            return;
        }
        let Bait { worker, leaf } = bait;
        let mut altered = leaf.clone();
        let output = context.lot(&job.id, "output", numbers) as usize;
        let output = output % altered.outputs.len().max(1);
        let Some(port) = altered.outputs.get_mut(output) else {
            return;
        };
        port.digest = Digest(context.secret(&job.id, "altered", [self.next, 0]));
        self.tested.insert(checker);
        let original = Box::new(leaf);
        let purpose = Purpose::Canary { checker, original };
        let number = self.add(context.now, at, worker, altered, purpose);
        self.order(context, journal, job, number, checker);
    }

    /// Nobody is there who could re-run the leaf.
    fn give_up(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        job: &JobOrder,
        queued: Queued,
    ) -> Vec<AuditDecision> {
        let Queued { number, since } = queued;
        let Some(audit) = self.open.get(&number) else {
            return Vec::new();
        };
        let waited = context.now.since(since);
        let member = context.members.get(&audit.worker);
        let is_gone = member.is_none_or(|member| member.session.is_none());
        let may_return = member.is_some_and(|member| {
            is_gone && context.now.since(member.left) < context.config.opening_grace_us
        });
        if may_return {
            return Vec::new();
        }
        if let Purpose::Canary { checker, .. } = audit.purpose {
            self.close(context, number);
            return self.release_held(checker);
        }
        if !audit.accusations.is_empty() || audit.purpose == Purpose::Dispute {
            if is_gone || waited >= context.config.third_party_grace_us {
                return self.undecided(context, journal, number);
            }
            return Vec::new();
        }
        let are_awaited = job.options().min_checkers > 0 && audit.tried.is_empty();
        if is_gone || !are_awaited || waited >= context.config.checker_grace_us {
            let reason = if is_gone {
                "its worker left before it was re-run"
            } else {
                "no checker could re-run it"
            };
            self.inconclusive(context, journal, number, reason.to_string());
        }
        Vec::new()
    }

    /// Nobody can decide about a leaf that was called wrong, or that belongs to a disputed step.
    fn undecided(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        number: u64,
    ) -> Vec<AuditDecision> {
        let Some(audit) = self.open.get(&number) else {
            return Vec::new();
        };
        if audit.accusations.is_empty() {
            // Where others have tried, its worker has not given what it takes.
            let mut tried = audit.tried.iter();
            let was_tried = tried.any(|auditor| *auditor != audit.worker);
            let withheld_by = was_tried.then_some(audit.worker);
            return vec![AuditDecision::DisputeUndecided { withheld_by }];
        }
        let worker = audit.worker;
        let is_final = audit.purpose != Purpose::Dispute;
        let void = is_final.then_some(audit.at.step);
        let reason = format!(
            "a checker found a leaf of worker {} wrong, and no third party is there to decide: \
             add a checker",
            worker.short()
        );
        self.inconclusive(context, journal, number, reason.clone());
        vec![AuditDecision::Undecided {
            worker,
            void,
            reason,
        }]
    }
}

/// How many microbatches a checker may have to compute for a leaf.
fn microbatches(leaf: &Leaf) -> u64 {
    let of = |port: &Port| match port.kind {
        PortKind::Partial { node, .. } => u64::from(node.len()),
        _ => 1,
    };
    leaf.outputs.iter().map(of).max().unwrap_or(1)
}
