//! Coming and going.

use std::collections::BTreeSet;

use concord_proto::address::Address;
use concord_proto::limits::NAME_BYTES_MAX;
use concord_proto::session::{Hello, Role, ToWorker};
use concord_proto::{ARITHMETIC_VERSION, PROTOCOL_VERSION, WorkerId};

use super::event::{Effect, SessionId, Time};
use super::outbox::Outbox;
use super::pool::Member;
use super::reported::is_unprintable;
use super::rivals::refuse;
use super::{Core, Job};

impl Core {
    pub(super) fn on_opened(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        (worker, hello): (WorkerId, Hello),
    ) {
        if let Some(reason) = self.refusal(&worker, &hello) {
            return refuse(out, session, reason);
        }
        if self.pool.session(&worker).is_none() {
            return self.admit(now, out, session, (worker, hello));
        }
        if let Some(session) = self.rivals.wait(now, worker, session, hello) {
            out.tell(Effect::Close { session });
        }
    }

    /// Takes a process in whose key has no session.
    pub(super) fn admit(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        (worker, hello): (WorkerId, Hello),
    ) {
        // While it waited, its key may have been convicted.
        if let Some(reason) = self.refusal(&worker, &hello) {
            return refuse(out, session, reason);
        }
        self.pool.join(now, session, worker, &hello);
        let welcome = ToWorker::Welcome {
            coordinator: self.key.public(),
            heartbeat_ms: self.config.heartbeat_ms,
        };
        let message = welcome;
        out.tell(Effect::Send { session, message });
        if hello.role == Role::Worker {
            let endpoint = hello.endpoint.clone();
            self.pool.contest(&endpoint);
            out.tell(Effect::Probe {
                session,
                worker,
                endpoint,
            });
        }
        self.with_running(now, out, |job, desk| {
            if let Some(member) = desk.pool.get(&worker) {
                let kept = member.kept();
                desk.out.keep(kept);
            }
            let Some(held) = hello.held else {
                return;
            };
            match job {
                Some(job) if job.id == held.job => {
                    job.holding.insert(worker, (held.step, held.layers));
                }
                _ => desk.send(&worker, ToWorker::Forget { job: held.job }),
            }
        });
    }

    /// Why a process is not taken in, if it is not.
    fn refusal(&self, worker: &WorkerId, hello: &Hello) -> Option<String> {
        if let Some(offence) = self.pool.is_convicted(worker) {
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
        let too_long = |text: &str| text.len() > NAME_BYTES_MAX;
        // The name goes into the ledger, and onto the terminals of others.
        if hello.device.name.chars().any(is_unprintable) {
            return Some("a device name with control characters".to_string());
        }
        let is_long = too_long(&hello.device.name) || too_long(&hello.endpoint);
        if is_long {
            let words = format!("a device name or endpoint of over {NAME_BYTES_MAX} bytes");
            return Some(words);
        }
        // A checker is connected to by nobody.
        if hello.role == Role::Checker {
            return None;
        }
        Address::for_others(&hello.endpoint)
            .err()
            .map(|error| format!("{error} (--listen and --advertise of the worker)"))
    }

    pub(super) fn on_closed(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        reason: &str,
    ) {
        let Some(worker) = self.pool.leave(now, session) else {
            return self.rivals.forget(session);
        };
        self.with_deployed(now, out, |deployed, desk| {
            deployed.lose(desk, worker, reason)
        });
        self.with_running(now, out, |job, desk| {
            if let Some(job) = job {
                job.lose(desk, worker, reason);
            }
        });
        self.admit_rival(now, out, &worker);
    }

    pub(super) fn on_tick(&mut self, now: Time, out: &mut Outbox) {
        let lost_after = self.config.lost_after_us;
        // Where the coordinator itself was held up, heartbeats wait unread: nobody is lost.
        if now.since(self.ticked) > lost_after / 2 {
            self.pool.all_heard(now);
        }
        let beat = u64::from(self.config.heartbeat_ms) * 1_000;
        let held_up = now.since(self.ticked) > beat;
        self.ticked = now;
        let is_silent = |heard: Time| now.since(heard) > lost_after;
        let members = self
            .pool
            .connected()
            .filter(|member| is_silent(member.heard));
        let silent: Vec<SessionId> = members.filter_map(|member| member.session).collect();
        for session in silent {
            out.tell(Effect::Close { session });
            let reason = format!("no heartbeat for {} ms", lost_after / 1_000);
            self.on_closed(now, out, session, &reason);
        }
        self.judge_rivals(now, out, held_up);
        self.probe_again(now, out);
    }

    /// Lets workers go that wanted to and are no longer needed.
    pub(super) fn release_drained(&mut self, now: Time, out: &mut Outbox) {
        let seated = |member: &&Member| {
            let deployed = self.deployed.as_ref();
            deployed.is_some_and(|deployed| deployed.needs(&member.id))
        };
        let seated: BTreeSet<WorkerId> =
            self.pool.connected().filter(seated).map(|m| m.id).collect();
        self.with_running(now, out, |job, desk| {
            let is_needed = |id: &WorkerId| {
                seated.contains(id) || job.as_ref().is_some_and(|job| job.needs(id))
            };
            let draining = desk.pool.connected().filter(|member| member.draining);
            let free = draining.map(|member| member.id).filter(|id| !is_needed(id));
            for worker in free.collect::<Vec<_>>() {
                desk.send(&worker, ToWorker::Leave);
                if let Some(session) = desk.pool.session(&worker) {
                    desk.out.tell(Effect::Close { session });
                    desk.pool.leave(desk.now, session);
                }
            }
        });
    }
}

impl Job {
    /// Whether a worker still has a part in the plan, the state, or the proof.
    fn needs(&self, worker: &WorkerId) -> bool {
        let in_plan = self
            .active
            .as_ref()
            .is_some_and(|active| active.has(worker));
        let in_flush = self.flush.as_ref().is_some_and(|flush| flush.needs(worker));
        let stored = self.checkpoints.contains_key(&self.committed);
        let holds = self.holding.get(worker).map(|(step, _)| *step) == Some(self.committed);
        let audited = self
            .audits
            .open
            .values()
            .any(|audit| audit.worker == *worker);
        in_plan || in_flush || audited || (holds && !stored)
    }
}
