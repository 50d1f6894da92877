//! The questions of clients.

use concord_proto::JobId;
use concord_proto::client::{ClientResponse, JobState, JobSummary, MemberStatus, PoolStatus};
use concord_proto::limits::NAME_BYTES_MAX;
use concord_proto::session::Role;

use super::desk::Desk;
use super::event::{CallId, Effect, NewJob, Question, Time};
use super::outbox::Outbox;
use super::pool::Member;
use super::reported::reported;
use super::{Core, Job};

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
            Question::Jobs => ClientResponse::Jobs(self.summaries()),
            Question::Status => ClientResponse::Status(self.status()),
            Question::Cancel(job) => self.cancel(now, out, &job),
        };
        out.tell(Effect::Reply { call, response });
    }

    fn submit(&mut self, now: Time, out: &mut Outbox, mut new: NewJob) -> ClientResponse {
        let id = new.submission.spec.id();
        let name = &mut new.submission.options.name;
        *name = reported(std::mem::take(name));
        if self.deployed.is_some() {
            let why = "this coordinator serves a model and trains none: submit the job to another \
                       one (`concord coordinator`)";
            return ClientResponse::Refused(why.to_string());
        }
        if let Some(why) = refusal(&new) {
            return ClientResponse::Refused(why);
        }
        let number = self.jobs.values().map(|job| job.number + 1).max();
        let number = number.unwrap_or(0);
        let mut desk = Desk {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            pool: &mut self.pool,
            out,
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.revive(&mut desk, number, new.submission);
            job.save_progress(&mut desk);
        } else {
            let mut job = Job::new(&mut desk, number, new);
            job.save_progress(&mut desk);
            self.jobs.insert(id, job);
        }
        ClientResponse::Submitted(id)
    }

    fn cancel(&mut self, now: Time, out: &mut Outbox, id: &JobId) -> ClientResponse {
        let mut desk = Desk {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            pool: &mut self.pool,
            out,
        };
        match self.jobs.get_mut(id) {
            Some(job) if job.is_over() => {
                let words = match job.state {
                    JobState::Completed { .. } => "is completed",
                    JobState::Failed(_) => "has failed",
                    _ => "is cancelled",
                };
                ClientResponse::Refused(format!("job {} {words} already", id.0.short()))
            }
            Some(job) => {
                job.cancel(&mut desk);
                job.save_progress(&mut desk);
                ClientResponse::Cancelled
            }
            None => ClientResponse::Refused(format!("there is no job {id} here")),
        }
    }

    fn summaries(&self) -> Vec<JobSummary> {
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        jobs.sort_by_key(|job| job.number);
        jobs.into_iter().map(Job::summary).collect()
    }

    fn status(&self) -> PoolStatus {
        let running = self.running().and_then(|id| self.jobs.get(&id));
        let doing = |member: &Member| match (&self.deployed, running) {
            (Some(deployed), _) => deployed.doing(member),
            (None, Some(job)) => job.part_of(member),
            (None, None) => "idle".to_string(),
        };
        let doing = |member: &Member| match &member.unreached {
            Some(why) => format!(
                "{}; not reached at {}: {why}",
                doing(member),
                member.endpoint
            ),
            None => doing(member),
        };
        let show = |member: &Member| MemberStatus {
            id: member.id,
            role: member.role,
            device: member.device.clone(),
            doing: doing(member),
            audits_passed: match member.role {
                Role::Worker => member.passed,
                Role::Checker => member.answered,
            },
            audit_rate: running.map_or(self.audit_rate(), |job| {
                member.audit_rate(&job.submission.options, self.config.trust_after)
            }),
        };
        PoolStatus {
            coordinator: self.key.public(),
            members: self.pool.connected().map(show).collect(),
            convicted: self.pool.convicted().collect(),
            jobs: self.summaries(),
        }
    }
}

impl Job {
    /// What a member does for the job, in words.
    fn part_of(&self, member: &Member) -> String {
        let seat = self.active.as_ref().and_then(|active| {
            let seat = active.plan.slot(&member.id)?;
            Some((seat, active.plan.stages[seat.stage]))
        });
        let audits = self.audits.open.values();
        let judging = audits
            .filter(|audit| audit.judge() == Some(member.id))
            .count();
        match (seat, member.role) {
            _ if member.draining => "leaves".to_string(),
            (Some((seat, layers)), _) => format!(
                "layers {}..{} of pipeline {}",
                layers.start, layers.end, seat.replica
            ),
            (None, _) if judging > 0 => format!("re-runs {judging} leaves"),
            (None, Role::Worker) => "spare".to_string(),
            (None, Role::Checker) => "waits for leaves".to_string(),
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
    if new.data.sequences.is_empty() {
        return Some("the data set has no sequence".to_string());
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
