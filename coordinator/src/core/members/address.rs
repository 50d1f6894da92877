//! Whether workers are at the addresses that they give.
//!
//! The coordinator tries each address itself: the worker there has to prove its key. A worker that
//! is not reached gets no work for jobs: nobody could open what it claims, and it would escape
//! every audit. It is tried again until it is reached.
//!
//! Anybody can give an address that is another's. So where several give the same one, only a proof
//! counts: the worker that gives one keeps the address, however late it came, and the others are
//! refused.

use concord_proto::WorkerId;
use concord_proto::session::{Role, ToWorker};

use super::PoolMember;
use super::rivals::refuse;
use crate::core::Core;
use crate::core::event::{CoreEffect, SessionId};
use crate::core::outbox::Outbox;
use crate::core::reported::reported;
use crate::core::time::Time;

/// How long a newcomer waits for the first answer about its address. Without an answer it counts
/// as reached: there may be too many to try.
const FIRST_TRY_US: u64 = 5_000_000;

/// Who is not reached is tried again this often.
const TRY_AGAIN_US: u64 = 15_000_000;

/// Whose address others give, too, is tried again this often: longer than a try takes.
const TRY_CONTESTED_US: u64 = 5_000_000;

impl PoolMember {
    /// Whether the coordinator reaches it at its address, as far as is known.
    pub(in crate::core) fn is_reached(&self, now: Time) -> bool {
        let is_late = now.since(self.came) >= FIRST_TRY_US;
        let is_known = self.is_tried || (is_late && !self.is_contested);
        self.unreached.is_none() && is_known
    }

    /// Whether it has proven that it is at its address, when it was last tried.
    pub(in crate::core) fn is_proven(&self) -> bool {
        self.is_tried && self.unreached.is_none()
    }

    /// Whether it need not be tried again.
    fn is_settled(&self) -> bool {
        self.is_proven() && !self.is_contested
    }

    /// Why it is given no work, in words, and what would help.
    pub(in crate::core) fn out_of_reach(&self) -> Option<String> {
        let why = self.unreached.as_ref()?;
        Some(format!(
            "is not reached at {}: {why}; give it an --advertise that others can reach",
            self.endpoint
        ))
    }
}

impl Core {
    /// The coordinator has tried the address of a worker.
    pub(in crate::core) fn on_probed(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        failure: Option<String>,
    ) {
        let worker = self.members.of_session(session);
        let Some(member) = worker.and_then(|worker| self.members.get_mut(&worker)) else {
            return;
        };
        let failure = failure.map(reported);
        let is_news = member.unreached != failure;
        (member.is_tried, member.is_contested) = (true, false);
        member.unreached.clone_from(&failure);
        let endpoint = member.endpoint.clone();
        if let Some(why) = failure.filter(|_| is_news) {
            let reason = format!("the coordinator has tried: {why}");
            let message = ToWorker::Unreached { reason };
            out.tell(CoreEffect::Send { session, message });
        }
        self.settle_address(now, out, &endpoint);
    }

    /// Refuses those who say that they are at an address where another worker has proven to be. Who
    /// has not been tried since the address is contested may be there still: it is waited for.
    fn settle_address(&mut self, now: Time, out: &mut Outbox, endpoint: &str) {
        let answered = |member: &&PoolMember| member.is_tried && !member.is_contested;
        // Two can give a proof where one stands before the other: who was there first stays.
        let holder = self
            .members
            .at(endpoint)
            .filter(|member| member.is_settled());
        let Some(holder) = holder.min_by_key(|member| (member.came, member.id)) else {
            return;
        };
        let holder = holder.id;
        let others = self.members.at(endpoint).filter(answered);
        let others = others.filter(|member| member.id != holder);
        let others: Vec<SessionId> = others.filter_map(|member| member.session).collect();
        for session in others {
            let reason = format!(
                "{endpoint} is the address of worker {}: give each worker a --listen or \
                 --advertise of its own",
                holder.short()
            );
            refuse(out, session, reason);
            self.on_closed(now, out, session, "another worker is at its address");
        }
    }

    /// Tries workers again that are not reached, or were never tried with success: a port may open
    /// late, and a firewall be mended.
    pub(in crate::core) fn probe_again(&mut self, now: Time, out: &mut Outbox) {
        let is_due = |member: &PoolMember| {
            let pause = match member.is_contested {
                true => TRY_CONTESTED_US,
                false => TRY_AGAIN_US,
            };
            let is_late = now.since(member.tried) >= pause;
            member.role == Role::Worker && !member.is_settled() && is_late
        };
        let due = self.members.connected().filter(|member| is_due(member));
        let due: Vec<WorkerId> = due.map(|member| member.id).collect();
        for worker in due {
            let Some(member) = self.members.get_mut(&worker) else {
                continue;
            };
            member.tried = now;
            if let Some(session) = member.session {
                let endpoint = member.endpoint.clone();
                out.tell(CoreEffect::Probe {
                    session,
                    worker,
                    endpoint,
                });
            }
        }
    }
}
