//! Events of jobs for clients that watch them: first those in the store, then new ones as they
//! come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use concord_proto::JobId;
use concord_proto::canonical;
use concord_proto::client::JobEvent;
use concord_proto::wire::Body;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use crate::store::Store;

/// A watcher that is more events behind than this reads them from the store again.
const BEHIND_MAX: usize = 256;

type Numbered = (u64, JobEvent);
type Channels = BTreeMap<JobId, broadcast::Sender<Numbered>>;

/// The channels of all watchers. None once the coordinator ends.
#[derive(Clone)]
pub(super) struct Watchers(Arc<Mutex<Option<Channels>>>);

impl Default for Watchers {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(BTreeMap::new()))))
    }
}

impl Watchers {
    /// Tells the watchers of a job.
    pub(super) fn publish(&self, job: JobId, number: u64, event: JobEvent) {
        // A std mutex: it is never held over an await.
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(jobs) = jobs.as_mut() else {
            return;
        };
        if let Some(channel) = jobs.get(&job)
            && channel.send((number, event)).is_err()
        {
            jobs.remove(&job);
        }
    }

    /// Ends all watching.
    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn subscribe(&self, job: JobId) -> Option<broadcast::Receiver<Numbered>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = jobs.as_mut()?.entry(job);
        let channel = channel.or_insert_with(|| broadcast::channel(BEHIND_MAX).0);
        Some(channel.subscribe())
    }
}

/// Sends the events of a job from number `next` on, until the job is over, the coordinator ends or
/// nobody listens.
pub(super) async fn replay(
    watchers: Watchers,
    store: Arc<Store>,
    job: JobId,
    mut next: u64,
    to: mpsc::Sender<Result<Body, Status>>,
) {
    while let Some(mut live) = watchers.subscribe(job) {
        let stored = match store.events(job, next).await {
            Ok(stored) => stored,
            Err(error) => {
                // The watcher may have gone.
                let _ = to.send(Err(Status::internal(error.to_string()))).await;
                return;
            }
        };
        let mut is_over = false;
        for event in stored {
            is_over = ends(&event);
            next += 1;
            if to.send(Ok(body(&event))).await.is_err() {
                return;
            }
        }
        if is_over {
            return;
        }
        // A watcher that falls behind starts over from the store.
        while let Ok((number, event)) = live.recv().await {
            if number < next {
                continue;
            }
            if number > next || to.send(Ok(body(&event))).await.is_err() {
                break;
            }
            next += 1;
            if ends(&event) {
                return;
            }
        }
        if to.is_closed() {
            return;
        }
    }
}

fn body(event: &JobEvent) -> Body {
    Body {
        bytes: canonical::encode(event),
    }
}

fn ends(event: &JobEvent) -> bool {
    matches!(
        event,
        JobEvent::Completed { .. } | JobEvent::Failed(_) | JobEvent::Cancelled
    )
}
