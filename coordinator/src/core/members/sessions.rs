//! Sessions that begin, fall silent and end.

use concord_proto::address::Address;
use concord_proto::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, is_unprintable};
use concord_proto::session::{Hello, Role, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, PROTOCOL_VERSION, WorkerId};

use super::rivals::refuse;
use crate::core::event::{CoreEffect, SessionId};
use crate::core::outbox::Outbox;
use crate::core::time::Time;
use crate::core::{Core, Mode};

impl Core {
    pub(in crate::core) fn on_opened(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        worker: WorkerId,
        hello: Hello,
    ) {
        if let Some(reason) = self.refusal(&worker, &hello) {
            return refuse(out, session, reason);
        }
        if self.members.session(&worker).is_none() {
            return self.admit(now, out, session, worker, hello);
        }
        if let Some(session) = self.rivals.wait(now, worker, session, hello) {
            out.tell(CoreEffect::Close { session });
        }
    }

    /// Takes a process in whose key has no session.
    pub(super) fn admit(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        worker: WorkerId,
        hello: Hello,
    ) {
        // While it waited, its key may have been convicted.
        if let Some(reason) = self.refusal(&worker, &hello) {
            return refuse(out, session, reason);
        }
        self.members.join(now, session, worker, &hello);
        let welcome = ToWorker::Welcome {
            coordinator: self.key.public(),
            heartbeat_ms: self.config.heartbeat_ms,
        };
        let message = welcome;
        out.tell(CoreEffect::Send { session, message });
        if hello.role == Role::Worker {
            let endpoint = hello.endpoint.clone();
            self.members.contest(&endpoint);
            out.tell(CoreEffect::Probe {
                session,
                worker,
                endpoint,
            });
        }
        self.with_running(now, out, |job, context| {
            if let Some(member) = context.members.get(&worker) {
                let change = member.persisted();
                context.out.persist(change);
            }
            let Some(held) = hello.held else {
                return;
            };
            match job {
                Some(job) if job.id() == held.job => job.note_held(worker, &held),
                Some(_) | None => context.send(&worker, ToWorker::Forget { job: held.job }),
            }
        });
    }

    /// Why a process is not taken in, if it is not.
    fn refusal(&self, worker: &WorkerId, hello: &Hello) -> Option<String> {
        if let Some(offence) = self.members.is_convicted(worker) {
            let offence = offence.as_str();
            return Some(format!("this key was convicted of {offence} and is out"));
        }
        let versions = |what: &str, theirs: u32, ours: u32| {
            format!(
                "{what} version {theirs}, and this coordinator has {ours}: run the same release \
                 of concord on both sides"
            )
        };
        if hello.protocol != PROTOCOL_VERSION {
            return Some(versions("protocol", hello.protocol, PROTOCOL_VERSION));
        }
        if hello.arithmetic != ARITHMETIC_VERSION {
            return Some(versions("arithmetic", hello.arithmetic, ARITHMETIC_VERSION));
        }
        // The name goes into the ledger, and onto the terminals of others.
        if hello.device.name.chars().any(is_unprintable) {
            return Some("a device name with control characters".to_string());
        }
        if hello.device.name.len() > NAME_BYTES_MAX {
            return Some(format!("a device name of over {NAME_BYTES_MAX} bytes"));
        }
        if hello.endpoint.len() > ADDRESS_BYTES_MAX {
            return Some(format!("an endpoint of over {ADDRESS_BYTES_MAX} bytes"));
        }
        // Nobody connects to a checker.
        if hello.role != Role::Worker {
            return None;
        }
        Address::for_others(&hello.endpoint)
            .err()
            .map(|error| format!("{error} (--listen and --advertise of the worker)"))
    }

    pub(in crate::core) fn on_closed(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        reason: &str,
    ) {
        let Some(worker) = self.members.leave(now, session) else {
            return self.rivals.forget(session);
        };
        match self.split(now, out) {
            (Mode::Serves(deployed), mut context, _) => deployed.lose(&mut context, worker, reason),
            (Mode::Trains, ..) => self.with_running(now, out, |job, context| {
                if let Some(job) = job {
                    job.lose(context, worker, reason);
                }
            }),
        }
        self.admit_rival(now, out, &worker);
    }

    /// Bytes came that are no message, or not of the session's key. Whoever is between the two can
    /// have put them there: the session ends, and nobody is accused.
    pub(in crate::core) fn on_broken(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        reason: &str,
    ) {
        if self.members.note_garbled(now, session) {
            out.tell(CoreEffect::Close { session });
            self.on_closed(now, out, session, reason);
        }
    }

    pub(in crate::core) fn on_tick(&mut self, now: Time, out: &mut Outbox) {
        let lost_after = self.config.lost_after_us;
        // If the coordinator itself was held up, heartbeats wait unread: nobody counts as lost.
        if now.since(self.ticked) > lost_after / 2 {
            self.members.all_heard(now);
        }
        let beat = u64::from(self.config.heartbeat_ms) * 1_000;
        let held_up = now.since(self.ticked) > beat;
        self.ticked = now;
        let is_silent = |heard: Time| now.since(heard) > lost_after;
        let members = self
            .members
            .connected()
            .filter(|member| is_silent(member.heard));
        let silent: Vec<SessionId> = members.filter_map(|member| member.session).collect();
        for session in silent {
            out.tell(CoreEffect::Close { session });
            let reason = format!("no heartbeat for {} ms", lost_after / 1_000);
            self.on_closed(now, out, session, &reason);
        }
        self.settle_rivals(now, out, held_up);
        self.probe_again(now, out);
    }

    /// Lets those workers go that asked to leave and are no longer needed.
    pub(in crate::core) fn release_drained(&mut self, now: Time, out: &mut Outbox) {
        let (mode, mut context, jobs) = self.split(now, out);
        let mode = &*mode;
        let job = jobs.running().and_then(|id| jobs.get(&id));
        let is_needed = |id: &WorkerId| match mode {
            Mode::Serves(deployed) => deployed.needs(id),
            Mode::Trains => job.is_some_and(|job| job.needs(id)),
        };
        let draining = context.members.connected().filter(|member| member.draining);
        let free = draining.map(|member| member.id).filter(|id| !is_needed(id));
        for worker in free.collect::<Vec<_>>() {
            context.send(&worker, ToWorker::Leave);
            if let Some(session) = context.members.session(&worker) {
                context.out.tell(CoreEffect::Close { session });
                context.members.leave(context.now, session);
            }
        }
    }
}
