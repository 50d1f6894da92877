//! What the re-runs of one process share: how many wait, whose turn it is, and what stays loaded.

use std::sync::Arc;

use concord_proto::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::job::AuditedJob;
use super::stages::Stages;

/// Orders that may wait. A coordinator has a few in flight at each checker: more than this is none
/// that waits for its answers.
const ORDERS_MAX: usize = 64;

/// It outlives sessions: what an order of the last one still computes counts.
#[derive(Clone)]
pub(crate) struct Bench {
    orders: Arc<Semaphore>,
    /// Held while inputs are fetched and until they are computed on, with the job of the last order.
    /// So there are the inputs of one leaf that is computed, and of the one after it.
    next: Arc<Mutex<Option<AuditedJob>>>,
    /// Held while a leaf or an answer is computed.
    computing: Arc<Mutex<()>>,
    pub(super) stages: Arc<Stages>,
}

impl Bench {
    /// With room for so many bytes of weights between two leaves.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            orders: Arc::new(Semaphore::new(ORDERS_MAX)),
            next: Arc::default(),
            computing: Arc::default(),
            stages: Arc::new(Stages::new(bytes)),
        }
    }

    /// A place in the queue of orders, kept until the answer; nothing where it is full.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.orders.clone().try_acquire_owned().ok()
    }

    /// Waits until inputs may be fetched.
    pub(super) async fn next(&self) -> OwnedMutexGuard<Option<AuditedJob>> {
        self.next.clone().lock_owned().await
    }

    /// Waits until it may be computed.
    pub(super) async fn computing(&self) -> OwnedMutexGuard<()> {
        self.computing.clone().lock_owned().await
    }
}

/// Why an order is not taken on.
pub(super) fn busy() -> String {
    format!("{ORDERS_MAX} orders wait here already")
}

/// The job of an order: that of the one before it, where it is the same.
pub(super) fn same_job(held: &mut Option<AuditedJob>, spec: Digest) -> Option<&mut AuditedJob> {
    held.as_mut().filter(|job| job.address == spec)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn orders_beyond_the_bound_are_refused_and_room_comes_back() {
        let bench = Bench::new(0);
        let mut held: Vec<_> = (0..ORDERS_MAX).map(|_| bench.enter().unwrap()).collect();
        assert!(bench.enter().is_none());
        held.pop();
        assert!(bench.enter().is_some());
    }

    #[tokio::test]
    async fn one_leaf_is_computed_and_one_more_is_fetched() {
        let bench = Bench::new(0);
        let soon = Duration::from_millis(20);
        // The first has its inputs and computes; the second has its inputs, the third nothing.
        let computing = bench.computing().await;
        let next = bench.next().await;
        let second = tokio::time::timeout(soon, bench.computing());
        assert!(second.await.is_err());
        assert!(tokio::time::timeout(soon, bench.next()).await.is_err());
        drop(computing);
        let computing = tokio::time::timeout(soon, bench.computing()).await;
        assert!(computing.is_ok());
        drop(next);
        assert!(tokio::time::timeout(soon, bench.next()).await.is_ok());
    }
}
