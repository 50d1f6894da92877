//! Two processes with one key: a folder that was copied, or a worker that came back before its old
//! connection was seen to be broken.
//!
//! A few heartbeats show which of the two it is: if the worker came back, nothing more is heard
//! over the old session. Until then the newcomer waits, and the old session goes on.

use std::collections::BTreeMap;

use concord_proto::WorkerId;
use concord_proto::session::{Hello, ToWorker};

use crate::core::Core;
use crate::core::event::{CoreEffect, SessionId};
use crate::core::outbox::Outbox;
use crate::core::time::Time;

/// Heartbeats without a word after which the old session counts as broken.
const BEATS: u64 = 3;

/// What the newcomer is told where the old session is alive.
const IN_USE: &str = "this key is in use by another worker or checker, which is alive: give this \
                      one a folder of its own with --dir, and copy no identity.key";

/// A newcomer whose key has a session.
struct Rival {
    session: SessionId,
    hello: Hello,
    since: Time,
}

/// Newcomers that wait, one for each key.
#[derive(Default)]
pub(in crate::core) struct Rivals(BTreeMap<WorkerId, Rival>);

impl Rivals {
    /// Has a newcomer wait. Another one that waits for the same key gives way, and is returned: it
    /// may be the same process, whose connection broke again.
    pub(super) fn wait(
        &mut self,
        now: Time,
        worker: WorkerId,
        session: SessionId,
        hello: Hello,
    ) -> Option<SessionId> {
        let earlier = self.0.remove(&worker);
        let rival = Rival {
            session,
            hello,
            // What was heard of the old session since the first newcomer came counts for all.
            since: earlier.as_ref().map_or(now, |rival| rival.since),
        };
        self.0.insert(worker, rival);
        earlier.map(|rival| rival.session)
    }

    /// Forgets a newcomer that left again.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.0.retain(|_, rival| rival.session != session);
    }

    /// Removes the newcomer with this key, and gives it.
    pub(super) fn take(&mut self, worker: &WorkerId) -> Option<(SessionId, Hello)> {
        let rival = self.0.remove(worker)?;
        Some((rival.session, rival.hello))
    }
}

impl Core {
    /// Lets newcomers in whose old session is silent, and refuses those whose old session is alive.
    /// If the coordinator itself was held up, the messages that it reads now may be old: the wait
    /// starts again.
    pub(super) fn settle_rivals(&mut self, now: Time, out: &mut Outbox, held_up: bool) {
        let beat = u64::from(self.config.heartbeat_ms) * 1_000;
        if held_up {
            let all = self.rivals.0.values_mut();
            all.for_each(|rival| rival.since = now);
            return;
        }
        let waiting = self.rivals.0.iter();
        let waiting: Vec<(WorkerId, Time)> =
            waiting.map(|(id, rival)| (*id, rival.since)).collect();
        for (worker, since) in waiting {
            let old = self.members.get(&worker);
            let old = old.and_then(|member| Some((member.session?, member.heard)));
            match old {
                // It left, or was let go.
                None => self.admit_rival(now, out, &worker),
                Some(_) if now.since(since) < BEATS * beat => {}
                // What was under way when the newcomer came has arrived within a heartbeat.
                Some((_, heard)) if heard >= since.plus(beat) => {
                    if let Some((session, _)) = self.rivals.take(&worker) {
                        refuse(out, session, IN_USE.to_string());
                    }
                }
                Some((session, _)) => {
                    out.tell(CoreEffect::Close { session });
                    self.on_closed(now, out, session, "it connected again");
                }
            }
        }
    }

    /// Takes in the newcomer whose key is free now.
    pub(super) fn admit_rival(&mut self, now: Time, out: &mut Outbox, worker: &WorkerId) {
        if let Some((session, hello)) = self.rivals.take(worker) {
            self.admit(now, out, session, *worker, hello);
        }
    }
}

/// Refuses a process for good, and ends its session.
pub(super) fn refuse(out: &mut Outbox, session: SessionId, reason: String) {
    let message = ToWorker::Refused { reason };
    out.tell(CoreEffect::Send { session, message });
    out.tell(CoreEffect::Close { session });
}
