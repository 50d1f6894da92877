//! One thing happens after another.

use std::ops::ControlFlow;

use super::*;

impl World {
    /// Runs until the job is over, or for `limit` microseconds. Gives the final record.
    pub fn run(&mut self, limit: u64) -> Option<Digest> {
        loop {
            if let ControlFlow::Break(record) = self.step(limit) {
                return record;
            }
        }
    }

    /// Lets the next thing happen. Breaks once the job is over, or so many microseconds are: with
    /// the final record, if there is one.
    pub fn step(&mut self, limit: u64) -> ControlFlow<Option<Digest>> {
        let Some(((time, _), item)) = self.queue.pop_first() else {
            return ControlFlow::Break(None);
        };
        self.now = time;
        if self.now > limit {
            return ControlFlow::Break(None);
        }
        self.happen(item);
        match self.memory.events.last() {
            Some(JobEvent::Completed { record, .. }) => ControlFlow::Break(Some(*record)),
            Some(JobEvent::Failed(_) | JobEvent::Cancelled) => ControlFlow::Break(None),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Microseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.now
    }
}
