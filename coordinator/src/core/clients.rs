//! The questions of clients.

use concord_proto::JobId;
use concord_proto::client::{ClientResponse, JobState, MemberStatus, PoolStatus};
use concord_proto::limits::NAME_BYTES_MAX;
use concord_proto::session::Role;

use super::event::{CallId, CoreEffect, Question};
use super::members::PoolMember;
use super::new_job::NewJob;
use super::outbox::Outbox;
use super::reported::reported;
use super::time::Time;
use super::{Core, Mode};

impl Core {
    pub(super) fn on_asked(
        &mut self,
        now: Time,
        out: &mut Outbox,
        call: CallId,
        question: Question,
    ) {
        let response = match question {
            Question::Submit(new) => self.submit(now, out, *new),
            Question::Jobs => ClientResponse::Jobs(self.jobs.summaries()),
            Question::Status => ClientResponse::Status(self.status()),
            Question::Cancel(job) => self.cancel(now, out, &job),
            Question::Fetched { job, steps } => {
                let (_, mut context, jobs) = self.split(now, out);
                if let Some(job) = jobs.get_mut(&job) {
                    job.note_fetched(&mut context, steps);
                }
                ClientResponse::Noted
            }
        };
        out.tell(CoreEffect::Reply { call, response });
    }

    fn submit(&mut self, now: Time, out: &mut Outbox, mut new: NewJob) -> ClientResponse {
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
        jobs.take_on(&mut context, id, new);
        ClientResponse::Submitted(id)
    }

    fn cancel(&mut self, now: Time, out: &mut Outbox, id: &JobId) -> ClientResponse {
        let (_, mut context, jobs) = self.split(now, out);
        let Some(job) = jobs.get_mut(id) else {
            return ClientResponse::Refused(format!("there is no job {id} here"));
        };
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

    fn status(&self) -> PoolStatus {
        PoolStatus {
            coordinator: self.key.public(),
            members: self.members.connected().map(|m| self.shown(m)).collect(),
            convicted: self.members.convicted().collect(),
            jobs: self.jobs.summaries(),
        }
    }

    fn shown(&self, member: &PoolMember) -> MemberStatus {
        let running = self.jobs.running().and_then(|id| self.jobs.get(&id));
        let (mut doing, audit_rate) = match (&self.mode, running) {
            (Mode::Serves(deployed), _) => (deployed.doing(member), deployed.audit_rate()),
            (Mode::Trains, Some(job)) => {
                let rate = member.audit_rate(job.options(), self.config.trust_after);
                (job.part_of(member), rate)
            }
            (Mode::Trains, None) => ("idle".to_string(), 0),
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
                Role::Checker => member.answered,
            },
            audit_rate,
        }
    }
}

/// Why a job is not taken on, if it is not.
fn refusal(new: &NewJob) -> Option<String> {
    let (spec, options) = (&new.submission.spec, &new.submission.options);
    if let Err(why) = spec.validate() {
        return Some(why.to_string());
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
    let is_long = options.name.len() > NAME_BYTES_MAX;
    is_long.then(|| format!("the job name has over {NAME_BYTES_MAX} bytes"))
}
