//! Whether workers are at the addresses that they give.
//!
//! The coordinator tries each address itself: the worker there has to prove its key. A worker that
//! is not reached gets no work for jobs: nobody could open what it claims, and it would escape
//! every audit. It is tried again until it is reached.
//!
//! Anybody can give an address that is another's. So where several give the same one, only a proof
//! counts: the worker that gives one keeps the address, however late it came, and the others are
//! refused. A worker that has given one is tried again when others give its address; as anybody
//! can bring that about, one try in vain is nothing against it.
//!
//! Serving needs no address that the coordinator reaches. Of workers at one address that have
//! proven nothing, the first has that work: otherwise whoever gives the address of one that the
//! coordinator cannot reach would take its work away.

use concord_proto::WorkerId;
use concord_proto::session::{Role, ToWorker};

use super::rivals::refuse;
use super::{Members, PoolMember};
use crate::core::Core;
use crate::core::event::{CoreEffect, SessionId};
use crate::core::outbox::Outbox;
use crate::core::reported::reported;
use crate::core::time::Time;

/// How long a newcomer waits for the first answer about its address. Without an answer it counts
/// as reached: many others may be tried before it.
const FIRST_TRY_US: u64 = 5_000_000;

/// Who is not reached is tried again this often.
const TRY_AGAIN_US: u64 = 15_000_000;

/// Whose address others give, too, is tried again this often: longer than a try takes.
const TRY_CONTESTED_US: u64 = 5_000_000;

/// Who has proven to be at its address counts as not reached after so many tries in vain.
const MISSED_MAX: u32 = 3;

/// Clashes that are named at most where it is told what is missing.
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

    /// Takes in what came of a try. `is_outdone` tells whether another worker has proven since to
    /// be at its address.
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

    /// A worker that is left alone at an address has nothing to prove anew.
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

    /// Whether another worker has proven that it is at the address of this one since this one has.
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

    /// Who gives the address of a worker that has yet to prove it, in words, and what would help.
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

    /// Workers that others at their addresses keep from work, for people.
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
