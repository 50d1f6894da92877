//! How far a gateway is on its way to its end, and what it waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How far a gateway is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainPhase {
    /// It takes requests.
    Open,
    /// It takes no new ones; those under way go on.
    Draining,
    /// Those under way end now, with an error.
    Cut,
    /// Connections end.
    Stopped,
}

/// Waits until `phase` is at least `until`, or the gateway is gone.
pub(crate) async fn reached(phase: &mut watch::Receiver<DrainPhase>, until: DrainPhase) {
    // An error is a sender that was dropped with the gateway.
    let _ = phase.wait_for(|phase| *phase >= until).await;
}

/// The requests under way: those that were let in and whose responses have not gone out.
#[derive(Clone, Debug)]
pub struct UnderWay(Arc<watch::Sender<Counts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Requests for answers.
    answers: usize,
    /// All requests.
    requests: usize,
}

/// A request under way; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    under_way: UnderWay,
    /// Whether it asks for an answer of the model.
    is_answer: bool,
}

impl UnderWay {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::channel(Counts::default()).0))
    }

    /// Requests for answers that are under way, from the one whose body is still coming to the one
    /// whose last bytes still go out.
    pub fn answers(&self) -> usize {
        self.0.borrow().answers
    }

    /// One more.
    pub(crate) fn begin(&self, is_answer: bool) -> Counted {
        self.0.send_modify(|counts| {
            counts.requests += 1;
            counts.answers += usize::from(is_answer);
        });
        Counted {
            under_way: self.clone(),
            is_answer,
        }
    }

    /// Waits until there is none, for at most `most`.
    pub(crate) async fn none(&self, most: Duration) {
        let mut counts = self.0.subscribe();
        // What is still under way after that is cut.
        let _ = timeout(most, counts.wait_for(|counts| counts.requests == 0)).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let is_answer = self.is_answer;
        self.under_way.0.send_modify(|counts| {
            counts.requests -= 1;
            counts.answers -= usize::from(is_answer);
        });
    }
}
