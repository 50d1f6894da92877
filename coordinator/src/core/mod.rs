//! The decisions of the coordinator: a state machine without clock, randomness, sockets or disk.
//!
//! [`Core::apply`] takes one event and gives the effects that follow from it. Nothing is told to
//! anyone before what it rests on is persisted: the driver carries effects out in their order.

mod asker;
mod clients;
mod config;
mod context;
mod event;
mod invariants;
mod members;
mod new_job;
mod outbox;
mod persisted;
mod reported;
mod serving;
mod serving_event;
mod time;
mod training;

use concord_proto::session::ToCoordinator;
use concord_proto::{Keypair, WorkerId};

use context::EventContext;
use members::{Members, Rivals};
use outbox::Outbox;
use reported::reported;
use serving::Deployed;
use training::{JobQueue, Refereed, TrainingJob};

pub use asker::Asker;
pub use config::Config;
pub use event::{CallId, CoreEffect, CoreEvent, Question, SessionId};
pub use new_job::NewJob;
pub use persisted::{
    Change, JobProgress, Persisted, PersistedAudit, PersistedJob, PersistedLedger, PersistedMember,
    UnopenedAttempt,
};
pub use serving_event::{ServingEffect, ServingEvent, StageHolder};
pub use time::Time;

/// The coordinator's state.
///
/// ```
/// use concord_coordinator::core::{Config, Core, CoreEvent, Persisted, Time};
/// use concord_proto::Keypair;
///
/// let key = Keypair::from_secret([1; 32]);
/// let mut core = Core::restore(Config::default(), key, [2; 32], Persisted::default());
/// let effects = core.apply(Time(0), CoreEvent::Tick);
/// assert!(effects.is_empty(), "nobody is there, and nothing was asked for");
/// ```
pub struct Core {
    config: Config,
    key: Keypair,
    /// Nonces are derived from it.
    secret: [u8; 32],
    members: Members,
    /// Newcomers whose key has a session.
    rivals: Rivals,
    /// If the coordinator serves, all of them are over.
    jobs: JobQueue,
    mode: Mode,
    /// When the last Tick came.
    ticked: Time,
}

/// What a coordinator does: never both.
enum Mode {
    Trains,
    Serves(Box<Deployed>),
}

impl Core {
    /// The core with the state that was persisted, which is empty for a new coordinator. `secret`
    /// is random, and the same after every restart.
    pub fn restore(config: Config, key: Keypair, secret: [u8; 32], persisted: Persisted) -> Self {
        let mut members = Members::restore(persisted.members, persisted.convicted);
        for (checker, agreed) in persisted.jobs.iter().flat_map(|job| &job.ledger.agreed) {
            members.note_answered(checker, *agreed);
        }
        let back_by = Time::default().plus(config.return_grace_us);
        Self {
            config,
            key,
            secret,
            members,
            rivals: Rivals::default(),
            jobs: JobQueue::restore(persisted.jobs, back_by),
            mode: Mode::Trains,
            ticked: Time::default(),
        }
    }

    /// Takes in what happened and gives what is to be done, in order.
    pub fn apply(&mut self, now: Time, event: CoreEvent) -> Vec<CoreEffect> {
        let mut out = Outbox::default();
        match event {
            CoreEvent::Tick => self.on_tick(now, &mut out),
            CoreEvent::Opened {
                session,
                worker,
                hello,
            } => self.on_opened(now, &mut out, session, worker, hello),
            CoreEvent::Message { session, message } => {
                if let Some(worker) = self.members.of_session(session) {
                    self.on_message(now, &mut out, worker, message);
                }
            }
            CoreEvent::Broken { session, reason } => {
                self.on_broken(now, &mut out, session, &reported(reason));
            }
            CoreEvent::Closed { session, reason } => {
                self.on_closed(now, &mut out, session, &reported(reason));
            }
            CoreEvent::Asked { call, by, question } => {
                self.on_asked(now, &mut out, (call, by), question);
            }
            CoreEvent::Probed { session, failure } => {
                self.on_probed(now, &mut out, session, failure);
            }
            CoreEvent::Serving(event) => {
                let (mode, mut context, _) = self.split(now, &mut out);
                // A coordinator that trains runs no tasks that could send these.
                if let Mode::Serves(deployed) = mode {
                    deployed.on_event(&mut context, event);
                }
            }
            CoreEvent::Refereed {
                job: of,
                order,
                finding,
                inputs,
                trace,
                is_able,
            } => self.with_running(now, &mut out, |job, context| {
                // That job may be over by now, and the numbers of another are its own.
                if let Some(job) = job.filter(|job| job.id() == of) {
                    match is_able {
                        true => {
                            let found = Refereed {
                                finding,
                                inputs,
                                trace,
                            };
                            job.on_refereed(context, order, found);
                        }
                        false => job.on_beyond_referee(context, order),
                    }
                }
            }),
            CoreEvent::BlobsChecked { check, missing } => {
                self.with_running(now, &mut out, |job, context| {
                    if let Some(job) = job {
                        job.on_blobs_checked(context, check, &missing);
                    }
                });
            }
        }
        self.go_on(now, &mut out);
        if cfg!(debug_assertions) {
            self.assert_invariants();
        }
        out.into_effects()
    }

    /// Does what the event made possible. When a job ends, the next one starts at once.
    fn go_on(&mut self, now: Time, out: &mut Outbox) {
        loop {
            let before = self.jobs.settle();
            self.with_running(now, out, |job, context| {
                if let Some(job) = job {
                    job.advance(context);
                }
            });
            if self.jobs.running() == before {
                break;
            }
        }
        let (mode, mut context, jobs) = self.split(now, out);
        jobs.tell_waiting(&mut context);
        match mode {
            Mode::Trains => {}
            Mode::Serves(deployed) => deployed.advance(&mut context),
        }
        self.release_drained(now, out);
    }

    fn on_message(
        &mut self,
        now: Time,
        out: &mut Outbox,
        worker: WorkerId,
        message: ToCoordinator,
    ) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.heard = now;
            member.draining |= message == ToCoordinator::Drain;
        }
        if let (Mode::Serves(deployed), mut context, _) = self.split(now, out) {
            return deployed.on_message(&mut context, worker, message);
        }
        self.with_running(now, out, |job, context| {
            if let Some(job) = job {
                job.on_message(context, worker, message);
            }
        });
    }

    /// The parts of the core that handle an event together.
    fn split<'a>(
        &'a mut self,
        now: Time,
        out: &'a mut Outbox,
    ) -> (&'a mut Mode, EventContext<'a>, &'a mut JobQueue) {
        let context = EventContext {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            members: &mut self.members,
            out,
        };
        (&mut self.mode, context, &mut self.jobs)
    }

    /// Runs `then` with the running job, if there is one.
    fn with_running<R>(
        &mut self,
        now: Time,
        out: &mut Outbox,
        then: impl FnOnce(Option<&mut TrainingJob>, &mut EventContext) -> R,
    ) -> R {
        let (_, mut context, jobs) = self.split(now, out);
        let mut job = jobs.running_mut();
        let result = then(job.as_deref_mut(), &mut context);
        if let Some(job) = job {
            job.save_progress(&mut context);
        }
        result
    }

    /// Whether there is a job that is not over.
    pub fn has_job(&self) -> bool {
        self.jobs.running().is_some()
    }
}
