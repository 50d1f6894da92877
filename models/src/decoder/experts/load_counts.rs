//! How many tokens each expert has computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use concord_kernels::ops::ExpertRows;

/// Tokens of each expert of a layer since it was loaded. Copies of a layer count together.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct LoadCounts(Arc<Vec<AtomicU64>>);

impl LoadCounts {
    /// Zero counts.
    pub(in crate::decoder) fn new(experts: usize) -> Self {
        Self(Arc::new((0..experts).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Counts the rows of a pass that go to the `held` experts from `first` on.
    pub(super) fn add(&self, first: usize, held: usize, rows: &ExpertRows) {
        let counts = self.0.iter().zip(rows.counts());
        for (count, more) in counts.skip(first).take(held) {
            count.fetch_add(more as u64, Ordering::Relaxed);
        }
    }

    /// The counts, by expert.
    pub(in crate::decoder) fn read(&self) -> Vec<u64> {
        let counts = self.0.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }
}
