//! What is kept, in memory: a model of the store.

use std::collections::BTreeMap;

use concord_coordinator::core::{
    Change, JobProgress, NewJob, Persisted, PersistedAudit, PersistedJob, PersistedLedger,
    PersistedMember,
};
use concord_proto::client::{JobEvent, Submission};
use concord_proto::ledger::Offence;
use concord_proto::manifest::StateManifest;
use concord_proto::{Plan, Signed, StepRecord, WorkerId};
use concord_verify::training::bundle::{Bundle, StepClaims, VoidClaims};

#[derive(Default)]
pub struct Memory {
    pub members: BTreeMap<WorkerId, PersistedMember>,
    pub convicted: BTreeMap<WorkerId, Offence>,
    pub submission: Option<Submission>,
    pub progress: Option<JobProgress>,
    pub records: BTreeMap<u32, StepRecord>,
    pub claims: BTreeMap<u32, StepClaims>,
    pub ledger: Vec<Signed>,
    pub plans: BTreeMap<u32, Plan>,
    pub checkpoints: BTreeMap<u32, StateManifest>,
    pub audits: BTreeMap<u64, PersistedAudit>,
    pub events: Vec<JobEvent>,
    /// The attempt of each step.
    attempts: BTreeMap<u32, u32>,
    voided: BTreeMap<u32, VoidClaims>,
}

impl Memory {
    pub fn persist(&mut self, change: Change) {
        match change {
            Change::Job { submission, .. } => self.submission = Some(*submission),
            Change::Progress { progress, .. } => self.progress = Some(progress),
            Change::Step {
                attempt,
                record,
                claims,
            } => {
                self.attempts.insert(record.step, attempt);
                self.claims.insert(record.step, claims);
                self.records.insert(record.step, record);
            }
            Change::Void { from_step, .. } => {
                for (step, claims) in self.claims.range(from_step..) {
                    let attempt = self.attempts[step];
                    let claims = claims.claims.clone();
                    let void = VoidClaims { attempt, claims };
                    self.voided.entry(attempt).or_insert(void);
                }
            }
            Change::Truncate { from_step, .. } => {
                self.records.retain(|step, _| *step < from_step);
                self.claims.retain(|step, _| *step < from_step);
            }
            Change::Ledger { number, entry, .. } => {
                assert_eq!(number, self.ledger.len() as u64);
                self.ledger.push(entry);
            }
            Change::Plan { plan } => {
                assert!(
                    self.plans.insert(plan.epoch, plan).is_none(),
                    "an epoch twice"
                );
            }
            Change::Checkpoint { state, .. } => {
                self.checkpoints.insert(state.step, state);
            }
            Change::DropCheckpoints { steps, .. } => {
                self.checkpoints.retain(|step, _| !steps.contains(step));
            }
            Change::AuditOpened { audit, .. } => {
                assert!(self.audits.insert(audit.number, audit).is_none());
            }
            Change::AuditContradicted { audit, .. } => {
                self.audits.insert(audit.number, audit);
            }
            Change::AuditClosed { number, .. } => {
                self.audits.remove(&number).expect("an audit closed twice");
            }
            Change::Event { number, event, .. } => {
                assert_eq!(number, self.events.len() as u64);
                self.events.push(event);
            }
            Change::Member(member) => {
                self.members.insert(member.id, member);
            }
            Change::Convicted { culprit, offence } => {
                assert!(self.convicted.insert(culprit, offence).is_none());
            }
        }
    }

    /// What a restart finds.
    pub fn persisted(&self, new: &NewJob) -> Persisted {
        let job = self.progress.clone().map(|progress| {
            let mut ledger = PersistedLedger::default();
            self.ledger
                .iter()
                .for_each(|entry| ledger.read(entry).unwrap());
            let open = self.audits.values().map(|audit| audit.step);
            let open = open.chain(ledger.first_unopened()).min();
            let last_two = progress.committed.saturating_sub(2);
            let from = open.map_or(last_two, |open| open.min(last_two));
            PersistedJob {
                number: 0,
                new: new.clone(),
                records: self.records.values().cloned().collect(),
                claims: self.claims.range(from..).map(|(_, c)| c.clone()).collect(),
                checkpoints: self.checkpoints.values().cloned().collect(),
                ledger,
                events: self.events.len() as u64,
                audits: self.audits.values().cloned().collect(),
                progress,
            }
        });
        Persisted {
            members: self.members.values().cloned().collect(),
            convicted: self.convicted.iter().map(|(&id, &o)| (id, o)).collect(),
            jobs: job.into_iter().collect(),
        }
    }

    pub fn bundle(&self, new: &NewJob) -> Bundle {
        Bundle {
            spec: new.submission.spec.clone(),
            data: new.data.clone(),
            initial_state: new.initial.clone(),
            records: self.records.values().cloned().collect(),
            claims: self.claims.values().cloned().collect(),
            voided: self.voided.values().cloned().collect(),
            ledger: self.ledger.clone(),
        }
    }
}
