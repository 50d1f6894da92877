//! Workers that do not reach each other.
//!
//! That A cannot reach B may be the fault of either. So the pair is remembered, and the one that is
//! in more such pairs is left out of plans with the others: a worker that claims to reach nobody
//! leaves itself out.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::WorkerId;

use crate::core::time::Time;

/// Two workers, one of which did not reach the other, are not planned together for this long,
/// doubled each time that it happens again.
const APART_US: u64 = 30_000_000;
const APART_MAX_US: u64 = 3_600_000_000;

/// The most pairs that are remembered. Each has cost a plan.
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
    /// Of two with the same count, the one that was not reached is left out. `is_doubtful` tells
    /// which workers the coordinator does not reach either.
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
    fn the_worker_that_comes_apart_from_most_is_left_out() {
        for (pairs, doubtful, expected) in [
            (&[][..], &[][..], &[][..]),
            (&[], &[1, 2], &[]),
            // One report: the one that was not reached.
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
