//! Workers that run out of memory: the next plans count on less of them.
//!
//! Only the worker learns what a stage really takes, and only when it runs out; the planner has an
//! estimate. So each time a worker runs out, it is taken to hold a quarter less than what was
//! counted for its stage, or less still where it lacked more: no plan is made twice, and the cuts
//! get smaller quickly.

use std::collections::BTreeMap;

use concord_proto::WorkerId;

/// Shortages of memory between two final steps after which the job fails.
pub(super) const SHORTAGES_MAX: u32 = 16;

/// What a worker says that has run out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Bytes that the worker held, and those that it could not get on top.
    pub(super) needed_bytes: u64,
    /// The most that the worker can hold.
    pub(super) limit_bytes: u64,
}

impl Shortage {
    /// The part of `counted`, the bytes of a stage that was too much, that may fit.
    fn fitting(self, counted: u64) -> u64 {
        let share = u128::from(counted) * u128::from(self.limit_bytes);
        let share = share / u128::from(self.needed_bytes.max(1));
        (counted - counted.div_ceil(4)).min(share.try_into().unwrap_or(u64::MAX))
    }
}

/// What is known of one worker.
#[derive(Clone, Copy, Debug)]
struct Learned {
    /// What it announced then. If a worker comes back with another amount, that one counts.
    announced: u64,
    /// What the planner may count on.
    usable: u64,
    shortage: Shortage,
}

/// What workers can hold of one job, in the planner's count.
#[derive(Debug, Default)]
pub(super) struct LearnedMemory {
    workers: BTreeMap<WorkerId, Learned>,
    /// Shortages since the last final step.
    shortages: u32,
}

impl LearnedMemory {
    /// The memory that the planner may count on, of a worker that announces `announced` bytes.
    pub(super) fn usable(&self, worker: &WorkerId, announced: u64) -> u64 {
        let learned = self
            .workers
            .get(worker)
            .filter(|l| l.announced == announced);
        learned.map_or(announced, |learned| learned.usable)
    }

    /// Takes in that a stage of `counted` bytes was too much for a worker. Says whether the job may
    /// go on after so many shortages.
    pub(super) fn learn(
        &mut self,
        worker: WorkerId,
        announced: u64,
        counted: u64,
        shortage: Shortage,
    ) -> bool {
        let usable = shortage.fitting(counted.min(self.usable(&worker, announced)));
        let learned = Learned {
            announced,
            usable,
            shortage,
        };
        self.workers.insert(worker, learned);
        self.shortages += 1;
        self.shortages <= SHORTAGES_MAX
    }

    /// A step is final: what is planned can be held.
    pub(super) fn held(&mut self) {
        self.shortages = 0;
    }

    /// Who ran out of memory, for people.
    pub(super) fn as_text(&self) -> String {
        let one = |(worker, learned): (&WorkerId, &Learned)| {
            let Shortage {
                needed_bytes,
                limit_bytes,
            } = learned.shortage;
            let worker = worker.short();
            format!("; worker {worker} ran out of memory: {needed_bytes} bytes of {limit_bytes}")
        };
        self.workers.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;

    use super::*;

    const WORKER: WorkerId = PublicKey([1; 32]);

    fn shortage(needed_bytes: u64, limit_bytes: u64) -> Shortage {
        Shortage {
            needed_bytes,
            limit_bytes,
        }
    }

    #[test]
    fn a_stage_that_was_too_much_is_never_counted_to_fit_again() {
        for (counted, needed, limit, usable) in [
            (1_000, 101, 100, 750),
            (1_000, 200, 100, 500),
            (1_000, 100, 0, 0),
            (1_000, 0, u64::MAX, 750),
            (
                u64::MAX,
                u64::MAX,
                u64::MAX,
                u64::MAX - u64::MAX.div_ceil(4),
            ),
            (1, 2, 1, 0),
            (0, 1, 1, 0),
        ] {
            let mut learned = LearnedMemory::default();
            assert!(learned.learn(WORKER, u64::MAX, counted, shortage(needed, limit)));
            assert_eq!(learned.usable(&WORKER, u64::MAX), usable, "{counted}");
            assert_eq!(learned.usable(&WORKER, 6_000), 6_000, "announced anew");
        }
    }

    #[test]
    fn it_is_given_up_after_so_many_times_without_a_step() {
        let mut learned = LearnedMemory::default();
        let mut fail = |steps: bool| {
            if steps {
                learned.held();
            }
            let counted = learned.usable(&WORKER, 1 << 40);
            learned.learn(WORKER, 1 << 40, counted, shortage(11, 10))
        };
        assert!((0..SHORTAGES_MAX).all(|_| fail(false)));
        assert!(!fail(false));
        assert!(fail(true));
        assert!(learned.as_text().contains("11 bytes of 10"));
    }
}
