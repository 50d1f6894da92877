//! Checkpoints that a client gets: they stay in the store until it says that it has them.

use std::collections::BTreeSet;

use concord_proto::client::RunOptions;

/// The states in the store that wait for a client, by their steps.
#[derive(Debug)]
pub(super) struct Saves {
    /// Steps between two of them.
    every: u32,
    /// Steps of the job; the last state is always one.
    last: u32,
    /// Most that wait: older ones give way. 0 where no client wants any.
    most: usize,
    waiting: BTreeSet<u32>,
}

impl Saves {
    /// Those of a job of `steps` steps. Which of the states in `stored` the client has is not
    /// persisted, so all of them wait for it again.
    pub(super) fn new(options: &RunOptions, steps: u32, stored: impl Iterator<Item = u32>) -> Self {
        let mut saves = Self {
            every: options.checkpoint_every,
            last: steps,
            most: options.checkpoints_kept as usize,
            waiting: BTreeSet::new(),
        };
        for steps in stored {
            saves.add(steps);
        }
        saves
    }

    /// Whether the state after `steps` steps is one.
    pub(super) fn is_due(&self, steps: u32) -> bool {
        let is_multiple = || self.every > 0 && steps.is_multiple_of(self.every);
        self.most > 0 && steps > 0 && (steps == self.last || is_multiple())
    }

    /// A state is in the store. Says whether the client is to be told.
    pub(super) fn add(&mut self, steps: u32) -> bool {
        let is_due = self.is_due(steps);
        if is_due {
            self.waiting.insert(steps);
            while self.waiting.len() > self.most {
                self.waiting.pop_first();
            }
        }
        is_due
    }

    /// The client has the state after `steps` steps.
    pub(super) fn fetched(&mut self, steps: u32) {
        self.waiting.remove(&steps);
    }

    /// The job goes back to `steps` steps.
    pub(super) fn rewind(&mut self, steps: u32) {
        self.waiting.retain(|&saved| saved <= steps);
    }

    /// Whether the state after `steps` steps waits for the client.
    pub(super) fn wait_for(&self, steps: u32) -> bool {
        self.waiting.contains(&steps)
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::client::PlanChoice;

    use super::*;

    fn saves(every: u32, most: u32) -> Saves {
        let options = RunOptions {
            name: String::new(),
            plan: PlanChoice::Auto,
            min_workers: 1,
            min_checkers: 0,
            checkpoint_every: every,
            checkpoints_kept: most,
            audit_rate_min: 0,
            audit_rate_new: 0,
            canary_rate: 0,
            recompute: false,
        };
        Saves::new(&options, 10, [0, 4, 6].into_iter())
    }

    #[test]
    fn the_newest_wait_until_they_are_fetched() {
        let mut saves = saves(4, 2);
        assert!(saves.wait_for(4), "it is not known that the client has it");
        assert!(!saves.wait_for(6), "it was stored for other reasons");
        assert!(saves.add(8) && !saves.add(9) && saves.add(10));
        assert!(!saves.wait_for(4) && saves.wait_for(8) && saves.wait_for(10));
        saves.fetched(10);
        assert!(saves.wait_for(8) && !saves.wait_for(10));
        saves.rewind(7);
        assert!(!saves.wait_for(8));
    }

    #[test]
    fn where_no_client_wants_any_none_is_due() {
        let saves = saves(1, 0);
        assert!((0..=10).all(|steps| !saves.is_due(steps) && !saves.wait_for(steps)));
        assert!(!super::tests::saves(0, 9).is_due(5) && super::tests::saves(0, 9).is_due(10));
    }
}
