//! What the audits of one process share: how many wait, whose inputs are fetched next, and what
//! stays loaded.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use concord_proto::{Digest, WorkerId};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::stage_cache::StageCache;
use crate::training::audit::AuditedJob;

/// Orders that may wait. A coordinator has a few in flight at each checker: one that sends more
/// than this does not wait for its answers.
const ORDERS_MAX: usize = 64;

/// Leaves whose inputs may be in memory: one that is computed, and the one after it.
const LEAVES_MAX: usize = 2;

/// It outlives sessions: orders of an earlier one that are still being computed count.
#[derive(Clone)]
pub(crate) struct AuditQueue {
    orders: Arc<Semaphore>,
    /// Leaves whose inputs are in memory, or on their way into it.
    leaves: Arc<Semaphore>,
    /// One for each worker that inputs are fetched from. A worker that stalls holds the place of
    /// one leaf: the other place is for the leaves of all others.
    workers: Arc<std::sync::Mutex<BTreeMap<WorkerId, Arc<Mutex<()>>>>>,
    /// The job of the last order.
    job: Arc<Mutex<Option<AuditedJob>>>,
    /// Held while a leaf or an answer is computed.
    computing: Arc<Mutex<()>>,
    pub(super) stages: Arc<StageCache>,
}

impl AuditQueue {
    /// With room for so many bytes of weights between two leaves.
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            orders: Arc::new(Semaphore::new(ORDERS_MAX)),
            leaves: Arc::new(Semaphore::new(LEAVES_MAX)),
            workers: Arc::default(),
            job: Arc::default(),
            computing: Arc::default(),
            stages: Arc::new(StageCache::new(bytes)),
        }
    }

    /// A place in the queue of orders, held until the answer; none where it is full.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.orders.clone().try_acquire_owned().ok()
    }

    /// Waits until the inputs of a leaf of `worker` may be fetched.
    pub(super) async fn turn(&self, worker: WorkerId) -> WorkerTurn {
        let lock = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|_, lock| Arc::strong_count(lock) > 1);
            workers.entry(worker).or_default().clone()
        };
        let worker = lock.lock_owned().await;
        let permit = self.leaves.clone().acquire_owned().await;
        let place = LeafPlace {
            _permit: permit.expect("nobody closes it"),
        };
        WorkerTurn {
            place,
            _worker: worker,
        }
    }

    /// Waits until nobody else uses the job of the last order.
    pub(super) async fn job(&self) -> OwnedMutexGuard<Option<AuditedJob>> {
        self.job.clone().lock_owned().await
    }

    /// Waits until nothing else is computed.
    pub(super) async fn computing(&self) -> OwnedMutexGuard<()> {
        self.computing.clone().lock_owned().await
    }
}

/// Permission to fetch from a worker. No other leaf of the same worker is fetched meanwhile.
pub(super) struct WorkerTurn {
    place: LeafPlace,
    _worker: OwnedMutexGuard<()>,
}

impl WorkerTurn {
    /// The inputs are here: the next leaf of the worker may be fetched.
    pub(super) fn fetched(self) -> LeafPlace {
        self.place
    }
}

/// Room for the inputs of one leaf. To be held until they are gone.
pub(super) struct LeafPlace {
    _permit: OwnedSemaphorePermit,
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
        let queue = AuditQueue::new(0);
        let mut held: Vec<_> = (0..ORDERS_MAX).map(|_| queue.enter().unwrap()).collect();
        assert!(queue.enter().is_none());
        held.pop();
        assert!(queue.enter().is_some());
    }

    fn worker(number: u8) -> WorkerId {
        concord_proto::PublicKey([number; 32])
    }

    /// Whether a future is still pending after a short while.
    async fn waits<T>(waited: impl Future<Output = T>) -> bool {
        let soon = Duration::from_millis(20);
        tokio::time::timeout(soon, waited).await.is_err()
    }

    #[tokio::test]
    async fn inputs_of_two_leaves_are_in_memory_and_no_more() {
        let queue = AuditQueue::new(0);
        // One has its inputs and computes, the second has its inputs, the third nothing.
        let computed = queue.turn(worker(1)).await.fetched();
        let next = queue.turn(worker(1)).await.fetched();
        assert!(waits(queue.turn(worker(1))).await);
        assert!(waits(queue.turn(worker(2))).await);
        drop(computed);
        let third = queue.turn(worker(2)).await;
        assert!(waits(queue.turn(worker(1))).await);
        drop((next, third));
        queue.turn(worker(1)).await;
    }

    #[tokio::test]
    async fn a_worker_that_stalls_holds_one_place() {
        let queue = AuditQueue::new(0);
        let _stalls = queue.turn(worker(1)).await;
        let mut more = Box::pin(queue.turn(worker(1)));
        for _ in 0..10 {
            assert!(waits(&mut more).await);
            queue.turn(worker(2)).await;
            queue.turn(worker(3)).await;
        }
    }

    #[tokio::test]
    async fn workers_that_nobody_waits_for_are_forgotten() {
        let queue = AuditQueue::new(0);
        for number in 0..100 {
            queue.turn(worker(number)).await;
        }
        assert!(queue.workers.lock().unwrap().len() <= 1);
    }

    #[tokio::test]
    async fn one_leaf_is_computed_at_a_time() {
        let queue = AuditQueue::new(0);
        let computing = queue.computing().await;
        assert!(waits(queue.computing()).await);
        drop(computing);
        queue.computing().await;
    }
}
