//! Decides when a request is read (parsed, rendered, tokenized).
//!
//! Small and large requests wait in separate queues, and a key has a limited number of places in
//! each, so that the waiting time of others does not depend on how much one key sends.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::options::Limits;

/// The most bytes of a small body, which is read in negligible time.
const SMALL_MAX: usize = 64 << 10;

/// The limits of reading: how many requests are read at a time, and memory for their bodies.
pub(crate) struct Readers {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// One permit for each byte.
    bodies: Arc<Semaphore>,
}

/// One key's share of [`Readers`].
pub(crate) struct ReaderShare {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// A turn to read, for as long as it is held, even if the client has left.
pub(crate) struct Turn {
    _own: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Memory for a body.
#[derive(Default)]
pub(crate) struct Room(Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)))
}

impl Readers {
    pub fn new(limits: &Limits) -> Self {
        Self {
            small: permits(processors()),
            // Half of the processors are left for small requests and for the engine.
            large: permits(processors() / 2),
            bodies: permits(limits.bodies_bytes),
        }
    }

    /// Waits for a turn to read a body of `bytes`.
    ///
    /// # Errors
    /// A 500 for a closed semaphore, which never happens.
    pub async fn turn(&self, share: &ReaderShare, bytes: usize) -> Result<Turn, ApiError> {
        let (own, all) = match bytes <= SMALL_MAX {
            true => (&share.small, &self.small),
            false => (&share.large, &self.large),
        };
        let bug = |_| ApiError::server("The gateway has a bug, please report it.");
        // First among the key's own requests, then in the common queue.
        let own = own.clone().acquire_owned().await.map_err(bug)?;
        let place = all.clone().acquire_owned().await.map_err(bug)?;
        Ok(Turn {
            _own: own,
            _place: place,
        })
    }

    /// Reserves memory for `bytes` more bytes of a body.
    ///
    /// # Errors
    /// A 503 where there is too little. Bodies do not wait for memory, because two half-read ones
    /// might wait for each other.
    pub fn make_room(
        &self,
        share: &ReaderShare,
        room: &mut Room,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let full = || {
            let message = "Too many bytes of requests are being read. Try again later.";
            ApiError::unavailable(Code::Overloaded, message, 1)
        };
        let count = u32::try_from(bytes).map_err(|_| full())?;
        let take = |of: &Arc<Semaphore>| of.clone().try_acquire_many_owned(count);
        let own = take(&share.bodies).map_err(|_| full())?;
        let all = take(&self.bodies).map_err(|_| full())?;
        match &mut room.0 {
            None => room.0 = Some((own, all)),
            Some((known_own, known)) => {
                known_own.merge(own);
                known.merge(all);
            }
        }
        Ok(())
    }
}

impl ReaderShare {
    pub fn new(limits: &Limits) -> Self {
        Self {
            small: permits(processors()),
            large: permits(1),
            // Half at most, so that there is always room for the bodies of others.
            bodies: permits(limits.bodies_bytes / 2),
        }
    }

    /// The whole, where there are no keys by which clients could be told apart.
    pub fn whole(limits: &Limits) -> Self {
        Self {
            small: permits(processors()),
            large: permits(processors() / 2),
            bodies: permits(limits.bodies_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// One key that sends a hundred large requests is one in the line.
    #[tokio::test]
    async fn a_key_waits_for_its_own_and_others_do_not() {
        let limits = Limits::default();
        let readers = Arc::new(Readers::new(&limits));
        let (one, other) = (
            Arc::new(ReaderShare::new(&limits)),
            ReaderShare::new(&limits),
        );
        let held = readers.turn(&one, 1 << 20).await.expect("a turn");
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let (readers, one) = (readers.clone(), one.clone());
            let turn = async move { readers.turn(&one, 1 << 20).await.map(drop) };
            waiting.push(tokio::spawn(turn));
        }
        tokio::task::yield_now().await;
        // A small one of the same key passes by the large ones.
        let small = timeout(Duration::from_secs(5), readers.turn(&one, 100)).await;
        drop(small.expect("no wait").expect("a turn"));
        drop(held);
        let turn = timeout(Duration::from_secs(5), readers.turn(&other, 1 << 20)).await;
        drop(turn.expect("no wait").expect("a turn"));
        for turn in waiting {
            turn.await.expect("no panic").expect("a turn");
        }
    }

    #[test]
    fn memory_for_bodies_is_bounded_and_comes_back() {
        let limits = Limits {
            bodies_bytes: 100,
            ..Limits::default()
        };
        let readers = Readers::new(&limits);
        let (one, other) = (ReaderShare::new(&limits), ReaderShare::new(&limits));
        let (mut a, mut b) = (Room::default(), Room::default());
        assert!(readers.make_room(&one, &mut a, 30).is_ok());
        assert!(readers.make_room(&one, &mut a, 20).is_ok());
        // Half of all is one key's.
        let error = readers.make_room(&one, &mut a, 1).expect_err("too much");
        assert_eq!(
            (error.code, error.retry_after),
            (Some(Code::Overloaded), Some(1))
        );
        assert!(readers.make_room(&other, &mut b, 50).is_ok());
        drop(a);
        assert!(readers.make_room(&one, &mut Room::default(), 50).is_ok());
    }
}
