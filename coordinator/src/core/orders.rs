//! Who re-runs what: orders to checkers, canaries among them, and what nobody can judge.

use concord_proto::session::{AuditOrder, Role, ToWorker};
use concord_proto::{Digest, Leaf, WorkerId};

use super::audit::{Audit, Purpose, Standing};
use super::desk::Desk;
use super::event::Time;
use super::job::Job;

/// Who might re-run a leaf.
enum Candidate {
    Found(WorkerId),
    AllBusy,
    Nobody,
}

impl Job {
    /// Hands out what waits, takes back what was not answered, gives up what cannot be judged.
    pub(super) fn run_audits(&mut self, desk: &mut Desk) {
        let late = desk.config.audit_timeout_us;
        let mut silent = Vec::new();
        for (number, audit) in &mut self.audits.open {
            if let Standing::Ordered { judge, since, .. } = audit.standing {
                let is_gone = desk.pool.session(&judge).is_none();
                if is_gone || desk.now.since(since) > late {
                    audit.pass_on(desk.now, judge);
                    let is_canary = matches!(audit.purpose, Purpose::Canary { .. });
                    silent.extend(is_canary.then_some((*number, judge)));
                }
            }
        }
        for (number, checker) in silent {
            // It never answered its canary: what it said until then stays untested.
            self.close_audit(desk, number);
            self.ask_others(desk, checker);
        }
        let queued = |(number, audit): (&u64, &Audit)| match audit.standing {
            Standing::Queued(since) => Some((*number, since)),
            _ => None,
        };
        let queued: Vec<(u64, Time)> = self.audits.open.iter().filter_map(queued).collect();
        for (number, since) in queued {
            // What was done for one may have closed others.
            let Some(audit) = self.audits.open.get(&number) else {
                continue;
            };
            match self.candidate(desk, audit) {
                Candidate::Found(judge) => self.order(desk, number, judge),
                Candidate::AllBusy => {}
                Candidate::Nobody => self.give_up(desk, number, since),
            }
        }
    }

    fn candidate(&self, desk: &Desk, audit: &Audit) -> Candidate {
        if desk.pool.session(&audit.worker).is_none() {
            return Candidate::Nobody;
        }
        if let Purpose::Canary { checker, .. } = &audit.purpose {
            let is_here = desk.pool.session(checker).is_some() && !audit.tried.contains(checker);
            return if is_here {
                Candidate::Found(*checker)
            } else {
                Candidate::Nobody
            };
        }
        let may_judge = |id: &WorkerId| *id != audit.worker && !audit.tried.contains(id);
        let of_role = |role| {
            let members = desk
                .pool
                .connected()
                .filter(move |member| member.role == role);
            let free = members.map(|member| member.id).filter(|id| may_judge(id));
            free.min_by_key(|id| (self.audits.in_flight(id), *id))
        };
        // Workers help out only where a step or a dispute waits: checkers have nothing to gain.
        let is_urgent = !audit.accusations.is_empty() || audit.purpose == Purpose::Contest;
        let worker = || is_urgent.then(|| of_role(Role::Worker)).flatten();
        match of_role(Role::Checker).or_else(worker) {
            None => Candidate::Nobody,
            Some(id) if self.audits.in_flight(&id) >= desk.config.audits_in_flight => {
                Candidate::AllBusy
            }
            Some(id) => Candidate::Found(id),
        }
    }

    fn order(&mut self, desk: &mut Desk, number: u64, judge: WorkerId) {
        self.enrol(desk, &judge, true);
        let order = self.audits.next_number();
        let Some(audit) = self.audits.open.get_mut(&number) else {
            return;
        };
        audit.standing = Standing::Ordered {
            order,
            judge,
            since: desk.now,
        };
        let endpoint = desk
            .pool
            .get(&audit.worker)
            .map(|member| member.endpoint.clone());
        let message = AuditOrder {
            order,
            spec: self.spec_blob,
            job: self.id,
            epoch: audit.epoch,
            step: audit.step,
            worker: audit.worker,
            endpoint: endpoint.unwrap_or_default(),
            leaf: audit.leaf.clone(),
        };
        let at = (audit.step, audit.epoch);
        let bait = audit.bait.take();
        desk.send(&judge, ToWorker::Audit(Box::new(message)));
        let is_checker = desk
            .pool
            .get(&judge)
            .is_some_and(|m| m.role == Role::Checker);
        if let (Some(bait), true) = (bait, is_checker) {
            self.test_checker(desk, at, judge, bait);
        }
    }

    /// Now and then, and the first time in any case, a checker gets a leaf that is altered.
    fn test_checker(
        &mut self,
        desk: &mut Desk,
        at: (u32, u32),
        checker: WorkerId,
        (worker, original): (WorkerId, Leaf),
    ) {
        let rate = self.submission.options.canary_rate;
        let numbers = [self.audits.next, at.0.into()];
        let lot = desk.lot(&self.id, "canary", numbers);
        let is_first = !self.audits.tested.contains(&checker);
        if rate == 0 || (!is_first && u64::from(lot) >= rate) {
            return;
        }
        let mut leaf = original.clone();
        let output = desk.lot(&self.id, "output", numbers) as usize % leaf.outputs.len().max(1);
        let Some(port) = leaf.outputs.get_mut(output) else {
            return;
        };
        port.digest = Digest(desk.secret(&self.id, "altered", [self.audits.next, 0]));
        self.audits.tested.insert(checker);
        let original = Box::new(original);
        let purpose = Purpose::Canary { checker, original };
        let number = self.audits.open(desk.now, at, worker, leaf, purpose);
        self.order(desk, number, checker);
    }

    /// Nobody is there who could re-run the leaf.
    fn give_up(&mut self, desk: &mut Desk, number: u64, since: Time) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        let waited = desk.now.since(since);
        let member = desk.pool.get(&audit.worker);
        let is_gone = member.is_none_or(|member| member.session.is_none());
        let may_return = member.is_some_and(|member| {
            is_gone && desk.now.since(member.left) < desk.config.opening_grace_us
        });
        if may_return {
            return;
        }
        if let Purpose::Canary { checker, .. } = audit.purpose {
            self.close_audit(desk, number);
            return self.release_held(desk, checker);
        }
        if !audit.accusations.is_empty() || audit.purpose == Purpose::Contest {
            if is_gone || waited >= desk.config.third_party_grace_us {
                self.undecided(desk, number);
            }
            return;
        }
        let are_awaited = self.submission.options.min_checkers > 0 && audit.tried.is_empty();
        if is_gone || !are_awaited || waited >= desk.config.checker_grace_us {
            let reason = if is_gone {
                "its worker left before it was re-run"
            } else {
                "no checker could re-run it"
            };
            self.inconclusive(desk, number, reason.to_string());
        }
    }

    /// A dispute or a contest that nobody can decide.
    fn undecided(&mut self, desk: &mut Desk, number: u64) {
        let Some(audit) = self.audits.open.get(&number) else {
            return;
        };
        if audit.accusations.is_empty() {
            return self.contest_unjudged(desk);
        }
        let (worker, step) = (audit.worker, audit.step);
        let is_contest = audit.purpose == Purpose::Contest;
        let reason = format!(
            "a checker found a leaf of worker {} wrong, and no third party is there to decide: \
             add a checker",
            worker.short()
        );
        self.inconclusive(desk, number, reason.clone());
        if !is_contest {
            self.retire(desk);
            self.void_from(desk, step);
        }
        self.set_aside(desk, worker, &reason);
    }
}
