//! Whether workers are at the addresses that they give.
//!
//! The coordinator tries each address itself: the worker there has to prove its key. A worker that
//! is not reached gets no work for jobs: nobody could open what it claims, and it would escape
//! every audit. It is tried again until it is reached.
//!
//! Anybody can give an address that belongs to another. So where several workers give the same one,
//! only a proof counts: the worker that proves its key there keeps the address, however late it
//! came, and the others are refused. A worker that has proven its address is tried again when
//! others give it, too; as anybody can bring that about, one failed try does not count against it.
//!
//! Serving does not need the coordinator to reach a worker's address. Of several unproven workers
//! at one address, the first to come gets work: otherwise a newcomer could take away the work of a
//! worker that the coordinator cannot reach, by giving its address.

use concord_proto::WorkerId;
use concord_proto::session::{Role, ToWorker};

use super::rivals::refuse;
use super::{Members, PoolMember};
use crate::core::Core;
use crate::core::event::{CoreEffect, SessionId};
use crate::core::outbox::Outbox;
use crate::core::reported::reported;
use crate::core::time::Time;

/// How long a newcomer waits for the first answer about its address. After that it counts as
/// reached without one: many others may be tried before it.
const FIRST_TRY_US: u64 = 5_000_000;

/// A worker that is not reached is tried again this often.
const TRY_AGAIN_US: u64 = 15_000_000;

/// A worker whose address others give, too, is tried again this often: longer than a try takes.
const TRY_CONTESTED_US: u64 = 5_000_000;

/// A worker that has proven its address counts as not reached after so many failed tries in a row.
const MISSED_MAX: u32 = 3;

/// The most address clashes that a status text names.
const NAMED_MAX: usize = 8;

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

    /// Notes the result of a try. `is_outdone`: another worker has proven since that it is at this
    /// address.
    fn note_tried(&mut self, now: Time, failure: Option<String>, is_outdone: bool) {
        match failure {
            None => (self.proven_at, self.missed) = (now, 0),
            Some(_) if self.is_proven() && !is_outdone && self.missed + 1 < MISSED_MAX => {
                self.missed += 1;
                // Where it is contested, it stays so, and is tried again.
                return;
            }
            Some(_) => {}
        }
        (self.is_tried, self.is_contested) = (true, false);
        self.unreached = failure;
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

impl Members {
    /// Where several workers say that they are at an address, all of them have to prove it anew.
    pub(super) fn contest(&mut self, endpoint: &str) {
        let at: Vec<WorkerId> = self.at(endpoint).map(|member| member.id).collect();
        if at.len() > 1 {
            for worker in at {
                if let Some(member) = self.get_mut(&worker) {
                    member.is_contested = true;
                }
            }
        }
    }

    /// The only worker left at an address need not prove it again.
    pub(super) fn end_contest(&mut self, endpoint: &str) {
        let at: Vec<WorkerId> = self.at(endpoint).map(|member| member.id).collect();
        if let [worker] = at[..]
            && let Some(member) = self.get_mut(&worker)
        {
            (member.is_contested, member.missed) = (false, 0);
        }
    }

    fn rivals_of<'a>(&'a self, member: &'a PoolMember) -> impl Iterator<Item = &'a PoolMember> {
        let at = self.at(&member.endpoint);
        at.filter(|other| other.id != member.id)
    }

    /// Whether another worker has proven this one's address more recently than this one did.
    pub(in crate::core) fn is_outdone(&self, member: &PoolMember) -> bool {
        let is_later = |other: &PoolMember| other.proven_at > member.proven_at;
        let outdoes = |other: &PoolMember| other.is_settled() || is_later(other);
        let mut rivals = self.rivals_of(member);
        let is_in_doubt = member.is_proven() && member.is_contested;
        is_in_doubt && rivals.any(|other| other.is_proven() && outdoes(other))
    }

    /// Whether it is doubtful that a worker is at its address: another one has proven that it is
    /// there, or, where nobody has, came before it.
    pub(in crate::core) fn is_dubious(&self, member: &PoolMember) -> bool {
        let is_before = |other: &PoolMember| (other.came, other.id) < (member.came, member.id);
        let mut rivals = self.rivals_of(member);
        let is_behind = rivals.any(|other| other.is_proven() || is_before(other));
        self.is_outdone(member) || (!member.is_proven() && is_behind)
    }

    /// In words: who gives the same address as a worker that has yet to prove it, and what would
    /// help.
    pub(in crate::core) fn clash(&self, member: &PoolMember) -> Option<String> {
        if member.role != Role::Worker || (member.is_proven() && !self.is_outdone(member)) {
            return None;
        }
        let rivals = self.rivals_of(member);
        let rival = rivals.min_by_key(|other| (!other.is_proven(), other.came, other.id))?;
        Some(format!(
            "shares its address {} with worker {}: give each worker a --listen or --advertise of \
             its own",
            member.endpoint,
            rival.id.short()
        ))
    }

    /// In words: the workers that get no work because others give their addresses.
    pub(in crate::core) fn clashes(&self) -> String {
        let dubious = self.connected().filter(|member| self.is_dubious(member));
        let words = dubious.filter_map(|member| {
            let clash = self.clash(member)?;
            Some(format!("; worker {} {clash}", member.id.short()))
        });
        words.take(NAMED_MAX).collect()
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
        let Some(worker) = self.members.of_session(session) else {
            return;
        };
        let member = self.members.get(&worker);
        let is_outdone = member.is_some_and(|member| self.members.is_outdone(member));
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        let before = member.unreached.clone();
        member.note_tried(now, failure.map(reported), is_outdone);
        let (endpoint, after) = (member.endpoint.clone(), member.unreached.clone());
        if let Some(why) = after.filter(|_| member.unreached != before) {
            let reason = format!("the coordinator has tried: {why}");
            let message = ToWorker::Unreached { reason };
            out.tell(CoreEffect::Send { session, message });
        }
        self.settle_address(now, out, &endpoint);
    }

    /// Refuses workers that give an address that another worker has proven to be its own. One that
    /// has not been tried since the address became contested may still prove it: it stays until
    /// then.
    fn settle_address(&mut self, now: Time, out: &mut Outbox, endpoint: &str) {
        let answered = |member: &&PoolMember| member.is_tried && !member.is_contested;
        // Two can prove the same address if one forwards to the other: the first to come stays.
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

    /// Tries workers again whose address is unproven or contested: a port may open late, and a
    /// firewall may be changed.
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
