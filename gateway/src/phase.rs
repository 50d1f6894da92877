//! How far a gateway is on its way to its end, and what it waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How far a gateway is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It takes requests.
    Open,
    /// It takes no new ones; those under way go on.
    Draining,
    /// Those under way end now, with an error.
    Cut,
    /// Connections end.
    Stopped,
}

/// Waits until `phase` is at least `until`; also over where the gateway is gone.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, until: Phase) {
    // An error is a sender that was dropped with the gateway.
    let _ = phase.wait_for(|phase| *phase >= until).await;
}

/// Counts the requests under way.
#[derive(Clone, Debug)]
pub(crate) struct UnderWay(Arc<watch::Sender<usize>>);

/// A request under way; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(UnderWay);

impl UnderWay {
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }

    /// One more.
    pub fn begin(&self) -> Counted {
        self.0.send_modify(|count| *count += 1);
        Counted(self.clone())
    }

    /// Waits until there is none, for at most `most`.
    pub async fn none(&self, most: Duration) {
        let mut count = self.0.subscribe();
        // What is still under way after that is cut.
        let _ = timeout(most, count.wait_for(|count| *count == 0)).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
