//! The questions of clients.

use std::collections::BTreeSet;

use concord_proto::client::{ClientResponse, JobState, MemberStatus, PoolStatus};
use concord_proto::limits::{AUDITORS_MAX, CHECKERS_MAX, NAME_BYTES_MAX};
use concord_proto::session::Role;
use concord_proto::{JobId, auditor};

use super::asker::Asker;
use super::event::{CallId, CoreEffect, Question};
use super::members::PoolMember;
use super::new_job::NewJob;
use super::outbox::Outbox;
use super::reported::reported;
use super::time::Time;
use super::{Core, Mode};
use crate::planner;

impl Core {
    pub(super) fn on_asked(
        &mut self,
        now: Time,
        out: &mut Outbox,
        (call, by): (CallId, Asker),
        question: Question,
    ) {
        let response = match question {
            Question::Submit(new) => self.submit(now, out, by, *new),
            Question::Jobs => ClientResponse::Jobs(self.jobs.summaries(&by)),
            Question::Status => self.status(&by),
            Question::Cancel(job) => self.cancel(now, out, &by, &job),
            Question::Fetched { job, steps } => {
                let (_, mut context, jobs) = self.split(now, out);
                let job = jobs.get_mut(&job);
                if let Some(job) = job.filter(|job| by.rules(job.submitters())) {
                    job.note_fetched(&mut context, steps);
                }
                ClientResponse::Noted
            }
        };
        out.tell(CoreEffect::Reply { call, response });
    }

    fn submit(
        &mut self,
        now: Time,
        out: &mut Outbox,
        by: Asker,
        mut new: NewJob,
    ) -> ClientResponse {
        let id = new.submission.spec.id();
        let name = &mut new.submission.options.name;
        *name = reported(std::mem::take(name));
        let (mode, mut context, jobs) = self.split(now, out);
        match mode {
            Mode::Trains => {}
            Mode::Serves(_) => {
                let why = "this coordinator serves a model and trains none: submit the job to \
                           another one (`concord coordinator`)";
                return ClientResponse::Refused(why.to_string());
            }
        }
        if let Some(why) = refusal(&new) {
            return ClientResponse::Refused(why);
        }
        jobs.take_on(&mut context, id, by, new);
        ClientResponse::Submitted(id)
    }

    fn cancel(&mut self, now: Time, out: &mut Outbox, by: &Asker, id: &JobId) -> ClientResponse {
        let (_, mut context, jobs) = self.split(now, out);
        // Whether there is a job of others is theirs to know.
        let job = jobs.get_mut(id);
        let Some(job) = job.filter(|job| by.sees(job.submitters())) else {
            return ClientResponse::Refused(format!("there is no job {id} of yours here"));
        };
        if !by.rules(job.submitters()) {
            let words = "was submitted by another key before yours, which may cancel it";
            return ClientResponse::Refused(format!("job {} {words}", id.0.short()));
        }
        let over = match job.state() {
            JobState::Waiting(_) | JobState::Running | JobState::Auditing => None,
            JobState::Completed { .. } => Some("is completed"),
            JobState::Failed(_) => Some("has failed"),
            JobState::Cancelled => Some("is cancelled"),
        };
        if let Some(words) = over {
            return ClientResponse::Refused(format!("job {} {words} already", id.0.short()));
        }
        job.cancel(&mut context);
        job.save_progress(&mut context);
        ClientResponse::Cancelled
    }

    fn status(&self, by: &Asker) -> ClientResponse {
        let jobs = self.jobs.summaries(by);
        if jobs.is_empty() && !by.is_admin {
            let why = format!(
                "the pool is shown to its admins, and to clients with a job here; your key is {}",
                by.key
            );
            return ClientResponse::Refused(why);
        }
        ClientResponse::Status(PoolStatus {
            coordinator: self.key.public(),
            members: self.members.connected().map(|m| self.shown(m)).collect(),
            convicted: self.members.convicted().collect(),
            jobs,
        })
    }

    fn shown(&self, member: &PoolMember) -> MemberStatus {
        let running = self.jobs.running().and_then(|id| self.jobs.get(&id));
        let mut doing = match (&self.mode, running) {
            (Mode::Serves(deployed), _) => deployed.doing(member),
            (Mode::Trains, Some(job)) => job.part_of(member),
            (Mode::Trains, None) => "idle".to_string(),
        };
        if let Some(why) = &member.unreached {
            doing = format!("{doing}; not reached at {}: {why}", member.endpoint);
        }
        if let Some(clash) = self.members.clash(member) {
            doing = format!("{doing}; {clash}");
        }
        MemberStatus {
            id: member.id,
            role: member.role,
            device: member.device.clone(),
            doing,
            audits_passed: match member.role {
                Role::Worker => member.passed,
                Role::Checker | Role::Auditor => member.answered,
            },
        }
    }
}

/// Why a job is not taken on, if it is not.
fn refusal(new: &NewJob) -> Option<String> {
    let (spec, options) = (&new.submission.spec, &new.submission.options);
    if let Err(why) = spec.validate() {
        return Some(why.to_string());
    }
    // Also of a job that is known: it would go over to another plan, and never to this one.
    let (plan, profile) = (&options.plan, &new.submission.profile);
    if let Err(why) = planner::check_choice(plan, spec.layers, spec.microbatches, profile) {
        return Some(format!("the plan: {why}"));
    }
    let tensors = spec.trainable.len();
    if let Err(why) = spec.check_data(&new.data) {
        return Some(format!("the data set: {why}"));
    }
    if new.initial.step != 0 || new.initial.entries.len() != tensors {
        return Some(format!(
            "the initial state has {} tensors after {} steps, not {tensors} after none",
            new.initial.entries.len(),
            new.initial.step
        ));
    }
    if options.checkers as usize > CHECKERS_MAX || options.audit_rate > auditor::RATE_MAX {
        return Some(format!(
            "its audits: at most {CHECKERS_MAX} checkers, with a rate of at most 1"
        ));
    }
    let auditors = &options.auditors;
    let keys: BTreeSet<_> = auditors.iter().map(|named| named.key).collect();
    let has_rates = auditors
        .iter()
        .all(|named| (1..=auditor::RATE_MAX).contains(&named.rate));
    if auditors.len() > AUDITORS_MAX || keys.len() < auditors.len() || !has_rates {
        return Some(format!(
            "its auditors: at most {AUDITORS_MAX}, each once, with a rate above 0 and at most 1"
        ));
    }
    let is_long = options.name.len() > NAME_BYTES_MAX;
    is_long.then(|| format!("the job name has over {NAME_BYTES_MAX} bytes"))
}
