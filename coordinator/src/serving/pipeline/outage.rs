//! Whether a pipeline ran before, and since when it has not been running.

use std::time::{Duration, Instant};

use crate::serving::router::Standing;

/// The times in which a pipeline does not run.
pub(super) struct Outage {
    /// Whether it ever ran.
    was_up: bool,
    /// When a stage was lost, until tokens come again.
    lost: Option<Instant>,
    /// Since when it does not run.
    idle_since: Option<Instant>,
}

impl Outage {
    pub(super) fn new() -> Self {
        Self {
            was_up: false,
            lost: None,
            idle_since: Some(Instant::now()),
        }
    }

    /// The standing of a pipeline whose stages are not all there.
    pub(super) fn standing(&self) -> Standing {
        match self.was_up {
            true => Standing::Recovering,
            false => Standing::Down,
        }
    }

    /// The pipeline stops running.
    pub(super) fn begin(&mut self) {
        self.lost = self.lost.or(Some(Instant::now()));
        self.idle_since = Some(Instant::now());
    }

    /// The pipeline runs. Gives whether it ran before.
    pub(super) fn end(&mut self) -> bool {
        self.idle_since = None;
        std::mem::replace(&mut self.was_up, true)
    }

    /// Tokens come again, or nobody waits for any: how long after the loss, where there was one.
    pub(super) fn resumed(&mut self) -> Option<Duration> {
        self.lost.take().map(|lost| lost.elapsed())
    }

    /// Whether it has not run for longer than `patience`.
    pub(super) fn lasts(&self, patience: Duration) -> bool {
        self.idle_since
            .is_some_and(|since| since.elapsed() > patience)
    }
}
