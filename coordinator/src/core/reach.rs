//! Workers that others cannot reach at the address that they gave.
//!
//! The coordinator tries each address itself: the worker there has to prove its key. Whom it does
//! not reach gets no work for jobs: nobody could open what it claims, and it would escape every
//! audit. It is tried again until it is reached.
//!
//! Anybody can give an address that is another's. So where several give the same one, only a proof
//! counts: whoever gives one keeps the address, however late it came, and the others are refused.
//!
//! That A cannot reach B may be the fault of either. So both are remembered, and whoever comes
//! apart from more others is left out of plans with them: a worker that says of everybody that it
//! is out of reach leaves itself out.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::WorkerId;
use concord_proto::session::{Role, ToWorker};

use super::Core;
use super::desk::Desk;
use super::event::{Effect, SessionId, Time};
use super::job::Job;
use super::outbox::Outbox;
use super::pool::Member;
use super::reported::reported;
use super::rivals::refuse;

/// A newcomer waits for the first answer about its address for so long. Without an answer it counts
/// as reached: there may be too many to try.
const FIRST_TRY_US: u64 = 5_000_000;

/// Who is not reached is tried again this often.
const TRY_AGAIN_US: u64 = 15_000_000;

/// Whose address others give, too, is tried again this often: longer than a try takes.
const TRY_CONTESTED_US: u64 = 5_000_000;

/// Two workers of which one did not reach the other are planned apart for this long, doubled each
/// time that it happens again.
const APART_US: u64 = 30_000_000;
const APART_MAX_US: u64 = 3_600_000_000;

/// Pairs that are remembered. Each has cost a plan.
const PAIRS_MAX: usize = 4_096;

/// Who did not reach whom.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pairs: BTreeMap<(WorkerId, WorkerId), Apart>,
}

#[derive(Clone, Copy, Debug)]
struct Apart {
    until: Time,
    times: u32,
}

impl Reach {
    /// Notes that `from` does not reach `to`.
    pub(super) fn note(&mut self, now: Time, from: WorkerId, to: WorkerId) {
        let times = self.pairs.get(&(from, to)).map_or(0, |apart| apart.times);
        if self.pairs.len() >= PAIRS_MAX {
            let oldest = self.pairs.iter().min_by_key(|(_, apart)| apart.until);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.pairs.remove(&oldest);
            }
        }
        let micros = (APART_US << times.min(16)).min(APART_MAX_US);
        let apart = Apart {
            until: now.plus(micros),
            times: times.saturating_add(1),
        };
        self.pairs.insert((from, to), apart);
    }

    /// Forgets a worker: it comes back as another process, perhaps at another address.
    pub(super) fn forget(&mut self, worker: &WorkerId) {
        self.pairs
            .retain(|(from, to), _| from != worker && to != worker);
    }

    /// Who of `workers` is to be left out so that all others reach each other, as far as is known.
    /// Where two count alike, the one that was not reached goes. `is_doubtful` tells of whom the
    /// coordinator knows that it does not reach it either.
    pub(super) fn left_out(
        &self,
        now: Time,
        workers: &BTreeSet<WorkerId>,
        is_doubtful: impl Fn(&WorkerId) -> bool,
    ) -> BTreeSet<WorkerId> {
        let apart = self.pairs.iter().filter(|(_, apart)| apart.until > now);
        let both =
            |(from, to): &(WorkerId, WorkerId)| workers.contains(from) && workers.contains(to);
        let mut pairs: Vec<(WorkerId, WorkerId)> =
            apart.map(|(pair, _)| *pair).filter(both).collect();
        let mut out = BTreeSet::new();
        while !pairs.is_empty() {
            let mut counts: BTreeMap<WorkerId, (usize, usize)> = BTreeMap::new();
            for (from, to) in &pairs {
                counts.entry(*from).or_default().0 += 1;
                let of_target = counts.entry(*to).or_default();
                *of_target = (of_target.0 + 1, of_target.1 + 1);
            }
            let weight = |(id, (all, as_target)): &(&WorkerId, &(usize, usize))| {
                (*all + usize::from(is_doubtful(id)), *as_target, **id)
            };
            let Some((worst, _)) = counts.iter().max_by_key(weight) else {
                break;
            };
            out.insert(*worst);
            pairs.retain(|(from, to)| from != worst && to != worst);
        }
        out
    }
}

impl Member {
    /// Whether the coordinator reaches it at its address, as far as is known.
    pub(super) fn is_reached(&self, now: Time) -> bool {
        let is_late = now.since(self.came) >= FIRST_TRY_US;
        let is_known = self.is_tried || (is_late && !self.is_contested);
        self.unreached.is_none() && is_known
    }

    /// Whether it has proven that it is at its address, when it was last tried.
    pub(super) fn is_proven(&self) -> bool {
        self.is_tried && self.unreached.is_none()
    }

    /// Whether it need not be tried again.
    fn is_settled(&self) -> bool {
        self.is_proven() && !self.is_contested
    }

    /// Why it is given no work, in words, and what would help.
    pub(super) fn out_of_reach(&self) -> Option<String> {
        let why = self.unreached.as_ref()?;
        Some(format!(
            "is not reached at {}: {why}; give it an --advertise that others can reach",
            self.endpoint
        ))
    }
}

impl Core {
    /// The coordinator has tried the address of a worker.
    pub(super) fn on_probed(
        &mut self,
        now: Time,
        out: &mut Outbox,
        session: SessionId,
        failure: Option<String>,
    ) {
        let worker = self.pool.of_session(session);
        let Some(member) = worker.and_then(|worker| self.pool.get_mut(&worker)) else {
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
            out.tell(Effect::Send { session, message });
        }
        self.settle_address(now, out, &endpoint);
    }

    /// Refuses those who say that they are at an address where another worker has proven to be. Who
    /// has not been tried since the address is contested may be there still: it is waited for.
    fn settle_address(&mut self, now: Time, out: &mut Outbox, endpoint: &str) {
        let answered = |member: &&Member| member.is_tried && !member.is_contested;
        // Two can give a proof where one stands before the other: who was there first stays.
        let holder = self.pool.at(endpoint).filter(|member| member.is_settled());
        let Some(holder) = holder.min_by_key(|member| (member.came, member.id)) else {
            return;
        };
        let holder = holder.id;
        let others = self.pool.at(endpoint).filter(answered);
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

    /// Has workers tried again that are not reached, or of which it is not known: a port may open
    /// late, and a firewall be mended.
    pub(super) fn probe_again(&mut self, now: Time, out: &mut Outbox) {
        let is_due = |member: &Member| {
            let pause = match member.is_contested {
                true => TRY_CONTESTED_US,
                false => TRY_AGAIN_US,
            };
            let is_late = now.since(member.tried) >= pause;
            member.role == Role::Worker && !member.is_settled() && is_late
        };
        let due = self.pool.connected().filter(|member| is_due(member));
        let due: Vec<WorkerId> = due.map(|member| member.id).collect();
        for worker in due {
            let Some(member) = self.pool.get_mut(&worker) else {
                continue;
            };
            member.tried = now;
            if let Some(session) = member.session {
                let endpoint = member.endpoint.clone();
                out.tell(Effect::Probe {
                    session,
                    worker,
                    endpoint,
                });
            }
        }
    }
}

impl Job {
    /// A worker of the plan says that it cannot reach another one. The next plan is made without
    /// the one of the two that is at fault.
    pub(super) fn on_unreached(
        &mut self,
        desk: &mut Desk,
        reporter: WorkerId,
        epoch: u32,
        (worker, reason): (WorkerId, String),
    ) {
        let active = self.active.as_ref().filter(|a| a.plan.epoch == epoch);
        let is_of_plan = active.is_some_and(|a| a.has(&reporter) && a.has(&worker));
        if !is_of_plan || reporter == worker {
            return;
        }
        desk.pool.reach.note(desk.now, reporter, worker);
        let left_out = self.left_out(desk);
        let member = desk.pool.get(&worker);
        let endpoint = member.map_or(String::new(), |member| member.endpoint.clone());
        let (by, why) = (reporter.short(), reported(reason));
        if left_out.contains(&worker) || !left_out.contains(&reporter) {
            let reason = format!("worker {by} cannot reach it at {endpoint}: {why}");
            let told = format!("worker {by} has tried: {why}");
            desk.send(&worker, ToWorker::Unreached { reason: told });
            return self.go_on_without(desk, worker, &reason);
        }
        let other = worker.short();
        let reason = format!("it cannot reach worker {other} at {endpoint}: {why}");
        self.go_on_without(desk, reporter, &reason);
    }

    /// Why workers that are connected have no part in the next plan, for people.
    pub(super) fn absent(&self, desk: &Desk) -> String {
        /// So many are named.
        const NAMED_MAX: usize = 4;
        let workers = desk.pool.connected().filter(|m| m.role == Role::Worker);
        let left_out = self.left_out(desk);
        let one = |member: &Member| {
            let id = &member.id;
            let why = if member.draining {
                "leaves".to_string()
            } else if let Some(why) = self.gave_up.get(id) {
                format!("says: {why}")
            } else if self.set_aside.contains(id) {
                "is set aside after a dispute".to_string()
            } else if let Some(words) = member.out_of_reach() {
                words
            } else if member.unfit_until > desk.now {
                format!("is tried again after a pause: {}", member.trouble)
            } else if left_out.contains(id) {
                format!("is not reached by others at {}", member.endpoint)
            } else {
                return None;
            };
            Some(format!("; worker {} {why}", id.short()))
        };
        workers.filter_map(one).take(NAMED_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;

    use super::*;

    fn id(number: u8) -> WorkerId {
        PublicKey([number; 32])
    }

    fn left_out(pairs: &[(u8, u8)], doubtful: &[u8]) -> Vec<u8> {
        let mut reach = Reach::default();
        for (from, to) in pairs {
            reach.note(Time(0), id(*from), id(*to));
        }
        let workers = (1..=5).map(id).collect();
        let is_doubtful = |worker: &WorkerId| doubtful.contains(&worker.0[0]);
        let out = reach.left_out(Time(1), &workers, is_doubtful);
        out.into_iter().map(|id| id.0[0]).collect()
    }

    #[test]
    fn whoever_comes_apart_from_most_is_left_out() {
        for (pairs, doubtful, expected) in [
            (&[][..], &[][..], &[][..]),
            (&[], &[1, 2], &[]),
            // One word: the one that was not reached.
            (&[(1, 2)], &[], &[2]),
            (&[(2, 1)], &[], &[1]),
            (&[(1, 2)], &[2], &[2]),
            // The coordinator does not reach the one that complains either.
            (&[(1, 2)], &[1], &[1]),
            (&[(1, 2)], &[1, 2], &[2]),
            // Not reached by several.
            (&[(1, 3), (2, 3), (4, 3)], &[], &[3]),
            // A worker that reaches nobody, or says so.
            (&[(1, 2), (1, 3), (1, 4), (1, 5)], &[], &[1]),
            (&[(1, 2), (1, 3)], &[], &[1]),
            // Neither reaches the other: one of them goes.
            (&[(1, 2), (2, 1)], &[], &[2]),
            // Two islands with a bad link each.
            (&[(1, 2), (3, 4)], &[], &[2, 4]),
            // Who is not there does not count.
            (&[(1, 9), (9, 1)], &[], &[]),
        ] {
            assert_eq!(
                left_out(pairs, doubtful),
                expected,
                "{pairs:?} {doubtful:?}"
            );
        }
    }

    #[test]
    fn it_is_tried_again_later_each_time() {
        let mut reach = Reach::default();
        let workers: BTreeSet<WorkerId> = [id(1), id(2)].into();
        let out = |reach: &Reach, now| !reach.left_out(Time(now), &workers, |_| false).is_empty();
        let mut now = 0;
        for times in 0..10u32 {
            reach.note(Time(now), id(1), id(2));
            let pause = (APART_US << times).min(APART_MAX_US);
            assert!(out(&reach, now + pause - 1), "{times}");
            now += pause;
            assert!(!out(&reach, now), "{times}");
        }
        reach.note(Time(now), id(1), id(2));
        reach.forget(&id(2));
        assert!(!out(&reach, now) && reach.pairs.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut reach = Reach::default();
        for from in 0..100 {
            for to in 100..200 {
                reach.note(Time(0), id(from), id(to));
            }
        }
        assert!(reach.pairs.len() <= PAIRS_MAX);
    }
}
