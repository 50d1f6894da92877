//! What concerns the job as a whole: workers that are lost or convicted, steps that are void, the
//! end.

use concord_proto::client::{JobEvent, JobState};
use concord_proto::ledger::LedgerEvent;
use concord_proto::manifest::StateEntry;
use concord_proto::session::{Role, ToWorker};
use concord_proto::{Conviction, Plan, WorkerId};
use concord_verify::training::{ConvictionRules, check_conviction};

use super::attempt::Attempt;
use super::audits::AuditDecision;
use super::charge::Charge;
use super::{Change, EventContext, TrainingJob};

impl TrainingJob {
    /// Does what follows from audits, in order.
    pub(super) fn carry_out(&mut self, context: &mut EventContext, decisions: Vec<AuditDecision>) {
        for decision in decisions {
            match decision {
                AuditDecision::Accept {
                    number,
                    auditor,
                    verdict,
                } => {
                    let (journal, job) = (&mut self.journal, &self.order);
                    let audits = &mut self.audits;
                    let more = audits.accept(context, journal, job, number, auditor, verdict);
                    self.carry_out(context, more.into_iter().collect());
                }
                AuditDecision::Convict(conviction) => self.convict(context, conviction),
                AuditDecision::DisputeAgrees { number } => self.dispute_agrees(context, number),
                AuditDecision::DisputeUndecided { withheld_by } => {
                    self.dispute_undecided(context, withheld_by);
                }
                AuditDecision::LeaveOut {
                    party,
                    void,
                    reason,
                } => self.leave_out(context, party, void, &reason),
            }
        }
    }

    /// Goes on without a party that nothing shows to be guilty. Steps from `void` on are done
    /// again.
    fn leave_out(
        &mut self,
        context: &mut EventContext,
        party: WorkerId,
        void: Option<u32>,
        reason: &str,
    ) {
        tracing::warn!(party = %party.short(), %reason, "the job goes on without a party");
        self.audits.leave_out(context, party);
        if let Some(step) = void {
            self.retire(context);
            self.void_from(context, step);
        }
        let member = context.members.get(&party);
        match member.map(|member| member.role) {
            // That there is no other worker says nothing about the job.
            Some(Role::Checker | Role::Auditor) => drop(self.crew.put_aside(context, party)),
            Some(Role::Worker) | None => self.set_aside(context, party, reason),
        }
    }

    /// Ends the plan in effect and the step being done. Its workers keep the committed state.
    pub(super) fn retire(&mut self, context: &mut EventContext) {
        self.drop_dispute(context);
        self.attempt = None;
        let Some(active) = self.planning.retire() else {
            return;
        };
        let (job, epoch) = (self.order.id, active.plan().epoch);
        for worker in active.workers() {
            context.send(&worker, ToWorker::Abort { job, epoch });
        }
    }

    /// A worker is gone with what it held, or what it holds is not trusted.
    pub(in crate::core) fn lose(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        reason: &str,
    ) {
        self.crew.forget_held(&worker);
        self.go_on_without(context, worker, reason);
    }

    /// Ends the plan and the flush that a worker has a part in.
    pub(super) fn go_on_without(
        &mut self,
        context: &mut EventContext,
        worker: WorkerId,
        reason: &str,
    ) {
        if let Some(member) = context.members.get_mut(&worker) {
            member.trouble = reason.to_string();
        }
        self.drop_flush_of(&worker);
        if self.is_planned(&worker) {
            let reason = reason.to_string();
            let why = format!("worker {}: {reason}", worker.short());
            self.planning.set_reason(why);
            self.journal
                .publish(context, JobEvent::Lost { worker, reason });
            self.retire(context);
        }
    }

    /// Ends a flush that needs a worker that can no longer take part in it.
    pub(super) fn drop_flush_of(&mut self, worker: &WorkerId) {
        self.flush.take_if(|flush| flush.needs(worker));
    }

    /// Goes on without a worker, without accusing it.
    pub(super) fn set_aside(&mut self, context: &mut EventContext, worker: WorkerId, reason: &str) {
        let are_others = self.crew.put_aside(context, worker);
        self.lose(context, worker, reason);
        if !are_others {
            self.fail(context, format!("{reason}, and no other worker is there"));
        }
    }

    /// Convicts a party, where an object shows its offence to others; else the job goes on without
    /// it. If a leaf was found wrong, all steps are void from the first one that the culprit had a
    /// part in: its leaves that were not drawn cannot be trusted, either. After other offences,
    /// steps are void from the first one with a drawn leaf of the culprit that is not audited.
    pub(super) fn convict(&mut self, context: &mut EventContext, charge: Charge) {
        let Some(conviction) = self.shown(&charge) else {
            return self.suspect(context, charge);
        };
        let Charge {
            culprit,
            offence,
            evidence,
            wrong,
            ..
        } = charge;
        if !context.expel(culprit, offence, &evidence) {
            return;
        }
        let member = context.members.get(&culprit);
        let is_checker = member.is_some_and(|member| member.role != Role::Worker);
        self.journal.enrol(context, &culprit, is_checker);
        let convicted = LedgerEvent::Convicted {
            culprit,
            offence,
            evidence: evidence.clone(),
            conviction,
        };
        self.journal.write(context, convicted);
        let convicted = JobEvent::Convicted {
            culprit,
            offence,
            evidence,
        };
        self.journal.publish(context, convicted);
        let unaudited = self.audits.first_unaudited(&culprit);
        let first_part = self.committed.first_part(&culprit);
        let first_part = first_part.filter(|_| wrong.is_some());
        let doubtful = [wrong, unaudited, first_part].into_iter().flatten().min();
        let had_part = self.is_planned(&culprit);
        self.crew.forget_held(&culprit);
        self.drop_flush_of(&culprit);
        if had_part || doubtful.is_some() {
            let why = format!("worker {} was convicted", culprit.short());
            self.planning.set_reason(why);
            self.retire(context);
        }
        if let Some(step) = doubtful {
            self.void_from(context, step);
        }
        self.audits.distrust(context, culprit);
    }

    /// What shows an offence to others, checked as they check it.
    fn shown(&self, charge: &Charge) -> Option<Box<Conviction>> {
        let conviction = charge.conviction.as_ref()?;
        let plans: Vec<Plan> = self
            .planning
            .active()
            .iter()
            .map(|a| a.plan().clone())
            .collect();
        let attempts: Vec<_> = self.attempt.iter().map(Attempt::id).collect();
        let rules = ConvictionRules {
            spec: self.order.spec(),
            job: self.order.id,
            data: &self.order.data,
            plans: &plans,
            attempts: &attempts,
        };
        match check_conviction(&rules, charge.culprit, charge.offence, conviction) {
            Ok(_) => Some(conviction.clone()),
            Err(why) => {
                let (culprit, offence) = (charge.culprit.short(), charge.offence.as_str());
                tracing::warn!(%culprit, %offence, %why, "nothing shows an offence");
                None
            }
        }
    }

    /// The job goes on without a party whose offence nothing shows to others. Its key stays in the
    /// pool.
    fn suspect(&mut self, context: &mut EventContext, charge: Charge) {
        let Charge {
            culprit,
            evidence,
            wrong,
            ..
        } = charge;
        self.audits.leave_out(context, culprit);
        if let Some(step) = wrong {
            self.retire(context);
            self.void_from(context, step);
        }
        self.crew.put_aside(context, culprit);
        self.lose(context, culprit, &evidence);
    }

    /// The job cannot be done.
    pub(super) fn fail(&mut self, context: &mut EventContext, why: String) {
        self.end(context, JobState::Failed(why.clone()));
        self.journal.publish(context, JobEvent::Failed(why));
    }

    /// Ends the job: its plan, its audits, and what members hold for it.
    pub(super) fn end(&mut self, context: &mut EventContext, state: JobState) {
        self.retire(context);
        self.flush = None;
        self.auditors.end();
        // Attempts with a leaf that nobody has re-run by now stay unsettled: to do their steps anew
        // would settle no more, as their secrets are open.
        self.audits.void(context, 0);
        self.state = state;
        let job = self.order.id;
        let members: Vec<WorkerId> = context.members.connected().map(|m| m.id).collect();
        for member in members {
            context.send(&member, ToWorker::Forget { job });
        }
    }

    /// Goes back to the newest checkpoint, because nobody is left that holds what came after. The
    /// records of the steps since then stay: the steps must come out equal again.
    pub(super) fn fall_back(&mut self, context: &mut EventContext) {
        self.go_back(context, self.committed.steps());
    }

    /// Goes back to the newest checkpoint at or before `step`, because what came after is in doubt.
    /// Drops all records from there on.
    fn void_from(&mut self, context: &mut EventContext, step: u32) {
        self.go_back(context, step.min(self.committed.steps()));
        self.forget_records(context);
    }

    fn go_back(&mut self, context: &mut EventContext, step: u32) {
        if let Some(state) = self.committed.newest_checkpoint(step) {
            let (to, entries) = (state.step, state.entries.clone());
            self.rewind_to(context, to, entries);
        }
    }

    /// Drops the records of steps that were to come out equal when they are done again.
    pub(super) fn forget_records(&mut self, context: &mut EventContext) {
        let (job, from_step) = (self.order.id, self.committed.forget_records());
        context.out.persist(Change::Truncate { job, from_step });
    }

    /// Makes `to` the number of committed steps; `entries` is the state then.
    pub(super) fn rewind_to(
        &mut self,
        context: &mut EventContext,
        to: u32,
        entries: Vec<StateEntry>,
    ) {
        if to >= self.committed.steps() {
            return;
        }
        self.flush = None;
        self.audits.void(context, to);
        self.auditors.void(to);
        self.saves.rewind(to);
        let steps = self.committed.rewind(self.order.spec(), to, entries);
        let job = self.order.id;
        if !steps.is_empty() {
            context.out.persist(Change::DropCheckpoints { job, steps });
        }
        let from_step = to;
        context.out.persist(Change::Void { job, from_step });
        self.journal
            .write(context, LedgerEvent::Voided { from_step });
        let from_step = self.spec().updates_before(to);
        self.journal
            .publish(context, JobEvent::Voided { from_step });
    }
}
