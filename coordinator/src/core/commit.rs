//! A step becomes final: its record, its claims and its ledger entry are kept together, then told.

use concord_proto::client::JobEvent;
use concord_proto::draw::{self, AuditRate};
use concord_proto::ledger::{LedgerEvent, claim_digest};
use concord_proto::manifest::StateEntry;
use concord_proto::session::ToWorker;
use concord_proto::{Claim, Digest, Plan, StepRecord, WorkerId};
use concord_verify::training as rules;
use concord_verify::training::bundle::StepClaims;

use super::desk::Desk;
use super::job::Job;
use super::kept::Change;
use super::step::Attempt;

impl Job {
    /// The record that the claims give.
    pub(super) fn next_record(&self) -> Option<StepRecord> {
        let after = self.state_after()?;
        let record = self.with_rules(|rules, attempt| {
            let claim = &attempt.claims.values().next()?.claim;
            Some(rules::step_record(rules, self.head(), claim, &after))
        });
        record.flatten()
    }

    fn state_after(&self) -> Option<Vec<StateEntry>> {
        let attempt = self.attempt.as_ref()?;
        let claims: Vec<&Claim> = attempt.claims.values().map(|given| &given.claim).collect();
        rules::merged_state(self.spec(), &claims)
    }

    pub(super) fn commit_or_contest(&mut self, desk: &mut Desk, record: StepRecord) {
        match self.records.get(&record.step) {
            Some(before) if *before != record => self.contest_record(desk),
            _ => self.commit(desk, record),
        }
    }

    /// Makes the step final although it came out differently before: all of it was re-run.
    pub(super) fn commit_contested(&mut self, desk: &mut Desk) {
        self.forget_records(desk);
        if let Some(record) = self.next_record() {
            self.commit(desk, record);
        }
    }

    fn commit(&mut self, desk: &mut Desk, record: StepRecord) {
        let Some(after) = self.state_after() else {
            return;
        };
        let (Some(active), Some(mut attempt)) = (&self.active, self.attempt.take()) else {
            return;
        };
        let (plan, workers) = (active.plan.clone(), active.workers());
        let Some(scalars) = attempt.scalars.take() else {
            return;
        };
        let mut kept = StepClaims {
            step: attempt.step,
            scalars,
            claims: Vec::new(),
        };
        for worker in &workers {
            let given = attempt.claims.remove(worker);
            let claim = given.map(|given| (given.signed, given.leaves));
            kept.claims.extend(claim);
        }
        let rates = self.audit_rates(desk, &workers);
        let digests: Vec<Digest> = kept.claims.iter().map(|c| claim_digest(&c.0)).collect();
        let committed = LedgerEvent::Committed {
            step: attempt.step,
            epoch: plan.epoch,
            record: record.digest(),
            claims: digests.clone(),
            nonce: attempt.nonce,
            rates: rates.clone(),
        };
        self.write(desk, committed);
        self.make_final(desk, &plan, &record, after);
        let seed = draw::seed(&attempt.nonce, &digests);
        self.draw_audits(desk, &seed, &rates, &kept);
        self.tell_commit(desk, &attempt, &workers, &record);
        let claims = kept;
        desk.out.keep(Change::Step { record, claims });
        // A state that is due while another is on its way into the store is left out, but for the last:
        // else the next one would always come too early for any to get there.
        if self.checkpoint_is_due() && (self.flush.is_none() || self.all_committed()) {
            self.flush_committed(desk);
        }
    }

    fn make_final(
        &mut self,
        desk: &mut Desk,
        plan: &Plan,
        record: &StepRecord,
        after: Vec<StateEntry>,
    ) {
        self.committed = record.step + 1;
        let (committed, oldest) = (self.committed, record.step);
        self.states.retain(|&step, _| step == oldest);
        self.states.insert(committed, after);
        self.records.insert(record.step, record.clone());
        self.learned.held();
        for (seat, worker) in plan.workers() {
            self.holding
                .insert(worker, (committed, plan.stages[seat.stage]));
            self.stalls.remove(&worker);
            self.first_part.entry(worker).or_insert(record.step);
            if let Some(member) = desk.pool.get_mut(&worker) {
                member.failures = 0;
            }
        }
    }

    fn tell_commit(
        &mut self,
        desk: &mut Desk,
        attempt: &Attempt,
        workers: &[WorkerId],
        record: &StepRecord,
    ) {
        let (job, epoch, step) = (self.id, self.epoch, record.step);
        let release_below = self.audits.oldest_step().unwrap_or(self.committed);
        for worker in workers {
            let message = ToWorker::Commit {
                job,
                epoch,
                step,
                record: record.digest(),
                release_below,
            };
            desk.send(worker, message);
        }
        let spec = self.spec();
        let tokens = spec.sequences_per_step() * u64::from(self.data.sequence_len);
        let event = JobEvent::Step {
            step,
            loss: record.loss,
            grad_norm: record.grad_norm,
            learning_rate: record.learning_rate,
            tokens,
            micros: desk.now.since(attempt.started),
            record: record.digest(),
        };
        self.publish(desk, event);
    }

    fn audit_rates(&self, desk: &Desk, workers: &[WorkerId]) -> Vec<AuditRate> {
        let options = &self.submission.options;
        let rate = |worker: &WorkerId| {
            let member = desk.pool.get(worker);
            member.map_or(options.audit_rate_new.min(1 << 32), |member| {
                member.audit_rate(options, desk.config.trust_after)
            })
        };
        let rates = workers.iter().map(|worker| AuditRate {
            worker: *worker,
            rate: rate(worker),
        });
        rates.collect()
    }
}
