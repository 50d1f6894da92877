//! The phases of a gateway's end, and the running requests for which it waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How far the end of a gateway has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainPhase {
    /// It takes requests.
    Open,
    /// It takes no new requests; running ones go on.
    Draining,
    /// Running requests are ended with an error.
    Cut,
    /// Connections are closed.
    Stopped,
}

/// Waits until `phase` is at least `until`, or the gateway was dropped.
pub(crate) async fn reached(phase: &mut watch::Receiver<DrainPhase>, until: DrainPhase) {
    // An error means that the sender was dropped with the gateway.
    let _ = phase.wait_for(|phase| *phase >= until).await;
}

/// The running requests: those that were admitted and whose responses are not completely sent.
#[derive(Clone, Debug)]
pub struct UnderWay(Arc<watch::Sender<Counts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Requests for answers.
    answers: usize,
    /// All requests.
    requests: usize,
}

/// A running request; it is over when this is dropped.
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

    /// Running requests for answers, including those whose body is still being received and those
    /// whose last bytes are still being sent.
    pub fn answers(&self) -> usize {
        self.0.borrow().answers
    }

    /// Counts in a request.
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

    /// Waits until no request is running, for at most `most`.
    pub(crate) async fn none(&self, most: Duration) {
        let mut counts = self.0.subscribe();
        // Requests that are still running after that are cut by the caller.
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
