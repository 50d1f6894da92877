//! Generations on their way to a pipeline, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the generations that are on their way to one pipeline: chosen for it, and not yet known
/// to its scheduler.
#[derive(Clone, Default)]
pub(in crate::serving) struct Arrivals(Arc<AtomicU32>);

impl Arrivals {
    /// Generations on their way now.
    pub(in crate::serving) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more generation, until the guard is dropped.
    pub(in crate::serving) fn announce(&self) -> Arrival {
        self.0.fetch_add(1, Ordering::Relaxed);
        Arrival(self.0.clone())
    }
}

/// A generation that counts as on its way. It goes with the generation; dropping it ends the count,
/// on whichever path that happens: arrived, refused, or lost with a channel that is closed.
#[must_use = "dropped at once, it counts nothing"]
pub(in crate::serving) struct Arrival(Arc<AtomicU32>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
