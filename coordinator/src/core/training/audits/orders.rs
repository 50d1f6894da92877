//! Who re-runs what: orders to checkers and auditors, and what nobody can audit.

use std::collections::BTreeSet;

use concord_proto::session::{AuditOrder, Role, ToWorker};
use concord_proto::{Leaf, Port, PortKind, WorkerId};

use super::{
    AuditDecision, EventContext, JobOrder, Journal, LeafAudit, LeafAudits, Purpose, Queued,
    Standing,
};

/// An auditor that has left leaves of so many steps in a row unanswered is asked for no more.
pub(super) const UNANSWERED_MAX: u32 = 3;

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
        let mut given_up = BTreeSet::new();
        for audit in self.open.values_mut() {
            if let Standing::Ordered { auditor, since, .. } = audit.standing {
                let is_gone = context.members.session(&auditor).is_none();
                let computed = match sums_again {
                    true => microbatches(&audit.of.leaf),
                    false => 1,
                };
                let late = late.saturating_mul(computed);
                let is_own = matches!(audit.purpose, Purpose::Own { .. });
                if is_gone && is_own {
                    // It may come back: nobody else's word settles it.
                    audit.standing = Standing::Queued(context.now);
                } else if is_gone || context.now.since(since) > late {
                    given_up.extend(is_own.then_some((auditor, audit.of.at.step)));
                    audit.pass_on(context.now, auditor);
                }
            }
        }
        for (auditor, step) in given_up {
            let times = self.unanswered.entry(auditor).or_default();
            *times += 1;
            if *times == UNANSWERED_MAX {
                let who = auditor.short();
                tracing::warn!("auditor {who} answers nothing, and is asked for no more leaves");
                context.members.note_silent(context.now, &auditor);
            }
            self.close_own(context, auditor, step);
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
            Standing::Ordered { .. } | Standing::Refereed { .. } => None,
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
        if (audit.is_contested() || audit.is_recheck()) && audit.has_referee(context) {
            return self.hand_to_referee(context, journal, job, queued);
        }
        if audit.is_recheck() {
            self.close(context, queued.number);
            return Vec::new();
        }
        match self.candidate(context, audit) {
            Candidate::Found(auditor) => {
                self.order(context, journal, job, queued.number, auditor);
                Vec::new()
            }
            Candidate::AllBusy => Vec::new(),
            Candidate::Nobody => self.give_up(context, journal, queued),
        }
    }

    fn candidate(&self, context: &EventContext, audit: &LeafAudit) -> Candidate {
        if context.members.session(&audit.of.worker).is_none() {
            return Candidate::Nobody;
        }
        if let (Purpose::Own { auditor }, false) = (&audit.purpose, audit.is_contested()) {
            return self.own_auditor(context, audit, *auditor);
        }
        let may_audit = |id: &WorkerId| {
            *id != audit.of.worker && !audit.tried.contains(id) && !self.left_out.contains(id)
        };
        let of_role = |role| {
            let members = context.members.connected();
            let members = members.filter(move |member| member.role == role);
            members.map(|member| member.id).filter(|id| may_audit(id))
        };
        // A checker whose word is being decided about is asked nothing until then, unless it is
        // other checkers that it waits for.
        let doubted = self.doubted(context);
        let free = |role| {
            let free = of_role(role).filter(|id| !doubted.contains(id));
            free.min_by_key(|id| (self.in_flight(id), *id))
        };
        // Checkers re-run leaves, because they have no part in the work. Workers give a second
        // opinion where no checker is left for it.
        let worker = || audit.is_contested().then(|| free(Role::Worker)).flatten();
        match free(Role::Checker).or_else(worker) {
            None if of_role(Role::Checker).next().is_some() => Candidate::AllBusy,
            None => Candidate::Nobody,
            Some(id) if self.in_flight(&id) >= context.config.audits_in_flight => {
                Candidate::AllBusy
            }
            Some(id) => Candidate::Found(id),
        }
    }

    /// Gives up what an auditor has drawn of a step: with one leaf unanswered the attempt is
    /// unsettled, and the job need not wait for the others.
    fn close_own(&mut self, context: &mut EventContext, auditor: WorkerId, step: u32) {
        let is_own = |audit: &LeafAudit| {
            audit.of.at.step == step && audit.purpose == Purpose::Own { auditor }
        };
        let own = self.open.iter().filter(|(_, audit)| is_own(audit));
        let own: Vec<u64> = own.map(|(number, _)| *number).collect();
        own.into_iter()
            .for_each(|number| self.inconclusive(context, number));
    }

    /// The auditor whose secret has drawn a leaf: nobody else's word settles it.
    fn own_auditor(
        &self,
        context: &EventContext,
        audit: &LeafAudit,
        auditor: WorkerId,
    ) -> Candidate {
        let is_here = context.members.session(&auditor).is_some();
        if !is_here || !self.asks(&auditor) || audit.tried.contains(&auditor) {
            return Candidate::Nobody;
        }
        let is_busy = self.in_flight(&auditor) >= context.config.audits_in_flight;
        match is_busy || self.doubted(context).contains(&auditor) {
            true => Candidate::AllBusy,
            false => Candidate::Found(auditor),
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
        let message = audit.order(context, job, order);
        *self.asked.entry(auditor).or_default() += 1;
        context.send(&auditor, ToWorker::Audit(Box::new(message)));
    }

    /// Nobody is there who could re-run the leaf.
    pub(super) fn give_up(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        queued: Queued,
    ) -> Vec<AuditDecision> {
        let Queued { number, since } = queued;
        let Some(audit) = self.open.get(&number) else {
            return Vec::new();
        };
        let waited = context.now.since(since);
        let member = context.members.get(&audit.of.worker);
        let is_gone = member.is_none_or(|member| member.session.is_none());
        // A worker that is accused is not left out because its link broke, or the coordinator was
        // started again.
        let grace = match audit.is_contested() {
            true => context.config.third_party_grace_us,
            false => context.config.opening_grace_us,
        };
        let may_return =
            member.is_some_and(|member| is_gone && context.now.since(member.left) < grace);
        if may_return {
            return Vec::new();
        }
        if audit.is_recheck() {
            self.close(context, number);
            return Vec::new();
        }
        if audit.is_contested() {
            let why = match is_gone {
                true => "the worker left before it was re-run",
                false => "no third party is there to decide: add a checker",
            };
            if is_gone || waited >= context.config.third_party_grace_us {
                return self.undecided(context, journal, number, why);
            }
            return Vec::new();
        }
        if let Purpose::Own { auditor } = audit.purpose {
            // It may come back: until then its leaves wait for it, as those of a worker do.
            let member = context.members.get(&auditor);
            let left = member.filter(|member| member.session.is_none());
            let is_awaited = left.is_some_and(|member| {
                context.now.since(member.left) < context.config.opening_grace_us
            });
            if is_gone || !is_awaited || audit.tried.contains(&auditor) {
                self.inconclusive(context, number);
            }
        }
        Vec::new()
    }
}

impl LeafAudit {
    /// The order to re-run it.
    pub(super) fn order(&self, context: &EventContext, job: &JobOrder, order: u64) -> AuditOrder {
        AuditOrder {
            order,
            spec: job.spec_blob,
            job: job.id,
            attempt: self.of.attempt,
            epoch: self.of.at.epoch,
            step: self.of.at.step,
            worker: self.of.worker,
            index: self.of.index,
            endpoint: context.endpoint(&self.of.worker),
            leaf: self.of.leaf.clone(),
        }
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
