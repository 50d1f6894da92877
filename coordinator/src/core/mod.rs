//! The brain of the coordinator: a state machine without clock, randomness, sockets or disk.
//!
//! [`Core::apply`] takes one event and gives the effects that follow from it. Nothing is told to
//! anyone before what it rests on is kept: the driver carries effects out in their order.

mod audit;
mod clients;
mod commit;
mod config;
mod contest;
mod convict;
mod departures;
mod desk;
mod distrust;
mod event;
mod finish;
mod flush;
mod invariants;
mod job;
mod kept;
mod ledger;
mod members;
mod memory;
mod orders;
mod outbox;
mod planning;
mod pool;
mod reach;
mod reported;
mod rewind;
mod rivals;
mod serving;
mod step;
mod verdict;
mod waiting;

use std::collections::BTreeMap;

use concord_proto::ledger::Offence;
use concord_proto::session::ToCoordinator;
use concord_proto::{JobId, Keypair, WorkerId};

use desk::Desk;
use job::Job;
use outbox::Outbox;
use pool::Pool;
use reported::reported;
use rivals::Rivals;
use serving::Deployed;

pub use config::Config;
pub use event::{CallId, Effect, Event, NewJob, Question, SessionId, Time};
pub use kept::{Change, Kept, KeptAudit, KeptJob, KeptJudgement, KeptLedger, KeptMember, Progress};
pub use serving::{Seat, ServingEffect, ServingEvent};

/// The coordinator's state.
pub struct Core {
    config: Config,
    key: Keypair,
    /// Nonces are derived from it.
    secret: [u8; 32],
    pool: Pool,
    /// Newcomers whose key has a session.
    rivals: Rivals,
    jobs: BTreeMap<JobId, Job>,
    /// The job that the pool works for: until it is over, none goes before it.
    current: Option<JobId>,
    /// What is served. A coordinator either serves or trains.
    deployed: Option<Box<Deployed>>,
    /// When the last Tick came.
    ticked: Time,
}

impl Core {
    /// The core as it was kept; of a new coordinator nothing is kept. `secret` is random, and the
    /// same after every restart.
    pub fn restore(config: Config, key: Keypair, secret: [u8; 32], kept: Kept) -> Self {
        let mut pool = Pool::restore(kept.members, kept.convicted);
        let judged = kept.jobs.iter().flat_map(|job| &job.ledger.judged);
        judged.for_each(|judged| pool.note_answered(&judged.checker));
        let job = |kept| {
            let mut job = Job::from_kept(kept);
            job.expected.1 = Time::default().plus(config.return_grace_us);
            (job.id, job)
        };
        Self {
            config,
            key,
            secret,
            pool,
            rivals: Rivals::default(),
            jobs: kept.jobs.into_iter().map(job).collect(),
            current: None,
            deployed: None,
            ticked: Time::default(),
        }
    }

    /// Takes in what happened and gives what is to be done, in order.
    pub fn apply(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let mut out = Outbox::default();
        match event {
            Event::Tick => self.on_tick(now, &mut out),
            Event::Opened {
                session,
                worker,
                hello,
            } => self.on_opened(now, &mut out, session, (worker, hello)),
            Event::Message { session, message } => {
                if let Some(worker) = self.pool.of_session(session) {
                    self.on_message(now, &mut out, worker, message);
                }
            }
            Event::Broken {
                session,
                offence,
                evidence,
            } => {
                if let Some(worker) = self.pool.of_session(session) {
                    self.on_broken(now, &mut out, worker, (offence, evidence));
                }
            }
            Event::Closed { session, reason } => {
                self.on_closed(now, &mut out, session, &reported(reason));
            }
            Event::Asked { call, question } => self.on_asked(now, &mut out, call, question),
            Event::Probed { session, failure } => self.on_probed(now, &mut out, session, failure),
            Event::Serving(event) => self.on_serving(now, &mut out, event),
            Event::BlobsChecked { check, missing } => {
                self.with_running(now, &mut out, |job, desk| {
                    if let Some(job) = job {
                        job.on_blobs_checked(desk, check, &missing);
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
            let before = self.running();
            self.current = before;
            self.with_running(now, out, |job, desk| {
                if let Some(job) = job {
                    job.advance(desk);
                }
            });
            if self.running() == before {
                break;
            }
        }
        self.tell_queue(now, out);
        self.serve(now, out);
        self.release_drained(now, out);
    }

    /// A worker has said something that nobody may say.
    fn on_broken(
        &mut self,
        now: Time,
        out: &mut Outbox,
        worker: WorkerId,
        (offence, evidence): (Offence, String),
    ) {
        if self.deployed.is_some() {
            let guilty = ServingEvent::Guilty {
                worker,
                offence,
                evidence,
            };
            return self.on_serving(now, out, guilty);
        }
        self.with_running(now, out, |job, desk| match job {
            Some(job) => job.convict(desk, worker, offence, evidence, None),
            None => {
                desk.expel(worker, offence, &evidence);
            }
        });
    }

    /// The job that the pool works for: the one before, or else the first in the queue that is not
    /// over. A job that is submitted again does not push another one out.
    fn running(&self) -> Option<JobId> {
        let current = self.current.and_then(|id| self.jobs.get(&id));
        if let Some(current) = current.filter(|job| !job.is_over()) {
            return Some(current.id);
        }
        let live = self.jobs.values().filter(|job| !job.is_over());
        live.min_by_key(|job| job.number).map(|job| job.id)
    }

    /// Runs `then` with the running job, if there is one.
    fn with_running<R>(
        &mut self,
        now: Time,
        out: &mut Outbox,
        then: impl FnOnce(Option<&mut Job>, &mut Desk) -> R,
    ) -> R {
        let running = self.running();
        let mut desk = Desk {
            now,
            config: &self.config,
            key: &self.key,
            secret: &self.secret,
            pool: &mut self.pool,
            out,
        };
        let mut job = running.and_then(|id| self.jobs.get_mut(&id));
        let result = then(job.as_deref_mut(), &mut desk);
        if let Some(job) = job {
            job.save_progress(&mut desk);
        }
        result
    }

    fn on_message(
        &mut self,
        now: Time,
        out: &mut Outbox,
        worker: WorkerId,
        message: ToCoordinator,
    ) {
        if let Some(member) = self.pool.get_mut(&worker) {
            member.heard = now;
            member.draining |= message == ToCoordinator::Drain;
        }
        if self.deployed.is_some() {
            return self.with_deployed(now, out, |deployed, desk| {
                deployed.on_message(desk, worker, message);
            });
        }
        self.with_running(now, out, |job, desk| {
            if let Some(job) = job {
                job.on_message(desk, worker, message);
            }
        });
    }
}

impl Job {
    /// A message about another job is late: that job is over.
    fn on_message(&mut self, desk: &mut Desk, worker: WorkerId, message: ToCoordinator) {
        match message {
            ToCoordinator::Ready { job, epoch } if job == self.id => self.on_ready(worker, epoch),
            ToCoordinator::Failed {
                job,
                epoch,
                reason,
                permanent,
            } if job == self.id => self.on_failed(desk, worker, epoch, (reason, permanent)),
            ToCoordinator::Unreached {
                job,
                epoch,
                worker: other,
                reason,
            } if job == self.id => self.on_unreached(desk, worker, epoch, (other, reason)),
            ToCoordinator::OutOfMemory {
                job,
                epoch,
                reason,
                needed_bytes,
                limit_bytes,
            } if job == self.id => {
                let shortage = memory::Shortage {
                    needed_bytes,
                    limit_bytes,
                };
                self.on_out_of_memory(desk, worker, epoch, shortage, &reported(reason));
            }
            ToCoordinator::Computed {
                job,
                epoch,
                step,
                losses,
                norms,
            } if job == self.id => {
                let computed = step::Computed { losses, norms };
                self.on_computed(desk, worker, (epoch, step), computed);
            }
            ToCoordinator::Updated { claim, leaves } => {
                self.on_updated(desk, worker, claim, leaves);
            }
            ToCoordinator::Flushed { job, step, state } if job == self.id => {
                self.on_flushed(desk, worker, step, &state);
            }
            ToCoordinator::Verdict { order, verdict } => {
                self.on_verdict(desk, worker, order, verdict);
            }
            _ => {}
        }
    }
}
